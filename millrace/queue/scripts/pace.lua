-- How fast a model's work gets done, which admission reckons with. Follows the prelude.
--
-- The hash pace
--   since, done                              while something waits without a pause: when the stretch began that is being
--                                            measured, and the cost done in it
--   full_cost, full_ms                       of such stretches, older ones counting for less: their ratio is the capacity
--   work:CLASS, work:CLASS:TENANT            "COST AT": cost done while something waited, fading
--   mean_cost, mean_estimate, mean_run_ms    of jobs that succeeded under their first lease: the newest 20 or so
--
-- A stretch begins and ends with an emit, so that it holds whole steps of each worker.

local pace = base .. 'pace'
local STRETCH_MS, AWAY_MS = 250, 1000
local PACE_MS, MIX_MS = 5000, 1000 -- how long the capacity counts that was measured, and who has used it
local MEANS = 20
local PACE_IDLE_MS = 600000 -- after that the fleet may be another one

local function fade(ms, memory_ms) return math.exp(-math.max(ms, 0) / memory_ms) end

local function lately(text)
  local cost, at = string.match(text or '', '(%S+) (%S+)')
  return cost and tonumber(cost) * fade(now - tonumber(at), MIX_MS) or 0
end

local function note_work()
  local names, amounts = {}, {}
  for line, cost in pairs(progress) do
    for _, name in ipairs({'work:' .. string.match(line, '^%d+'), 'work:' .. line}) do
      if not amounts[name] then table.insert(names, name) end
      amounts[name] = (amounts[name] or 0) + cost
    end
  end
  local fresh = {}
  for at, text in ipairs(redis.call('HMGET', pace, unpack(names))) do
    table.insert(fresh, names[at])
    table.insert(fresh, string.format('%.3f %d', lately(text) + amounts[names[at]], now))
  end
  redis.call('HSET', pace, unpack(fresh))
end

local function note_capacity(total, since)
  local done, full_cost, full_ms = unpack(redis.call('HMGET', pace, 'done', 'full_cost', 'full_ms'))
  done = (done or 0) + total
  local stretch = now - since
  if stretch < 0 or stretch > AWAY_MS and was_away() then
    redis.call('HSET', pace, 'since', now, 'done', 0)
  elseif stretch < STRETCH_MS then
    redis.call('HSET', pace, 'done', done)
  else
    local kept = fade(stretch, PACE_MS)
    redis.call('HSET', pace, 'since', now, 'done', 0,
      'full_cost', string.format('%.3f', (full_cost or 0) * kept + done),
      'full_ms', string.format('%.3f', (full_ms or 0) * kept + stretch))
  end
end

local function note_means()
  local means = redis.call('HMGET', pace, 'mean_cost', 'mean_estimate', 'mean_run_ms')
  for _, seen in ipairs(successes) do
    for at, value in ipairs(seen) do means[at] = (means[at] or value) + (value - (means[at] or value)) / MEANS end
  end
  redis.call('HSET', pace, 'mean_cost', string.format('%.3f', means[1]),
    'mean_estimate', string.format('%.3f', means[2]), 'mean_run_ms', string.format('%.3f', means[3]))
end

local function note_progress()
  if not redis.call('HGET', base .. 'load', 'jobs') then return end
  local since = redis.call('HGET', pace, 'since')
  if since then
    local total = 0
    for _, cost in pairs(progress) do total = total + cost end
    note_work()
    note_capacity(total, since)
  else
    redis.call('HSET', pace, 'since', now, 'done', 0)
  end
  redis.call('PEXPIRE', pace, PACE_IDLE_MS)
end

function write_pace()
  if next(progress) then note_progress() end
  if #successes > 0 then
    note_means()
    redis.call('PEXPIRE', pace, PACE_IDLE_MS)
  end
  progress, successes = {}, {}
end
