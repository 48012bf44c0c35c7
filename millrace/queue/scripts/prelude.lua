-- What every script of one model's queue shares; it is put in front of each of them.
--
-- KEYS[1] is the start of all keys of the model version (…:), which carry one hash tag. Further keys are made from it,
-- since a script learns the names of the jobs only while it runs; keys.py lists them all.
--
-- The hash job:JOB
--   state         waiting | running | ended         task, tenant, class, weight, cost (estimate), fingerprint, bytes
--   sequence      place in the tenant's FIFO, kept  submitted, taken (first take), ended: times
--   deadline      time                              window, kept (1: wanted to the deadline), keep_until: time
--   watchers      "FRONTEND=EXPIRY " …              retain (how long results stay after the end), ms
--   token, epoch, holder, base (offset at the take) strikes, attempts
--   last, history newest result                     spent (actual cost), charged (what the tenant has paid)
--   preempted     how often it was given back       trace (context of the caller's trace), or ''
--   ender         token that ended it               code, reason, message, field: how it ended; timing: how it went

local base = KEYS[1]
local CLASSES = {'30', '20', '10'}
local MAX_STRIKES, MAX_ATTEMPTS = 3, 50
local IDLE_MS = 8 * 86400000
local ORPHAN_MS = 7 * 86400000 -- how long a job that nobody reaps outlives its deadline

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function key(kind, name) return base .. kind .. ':' .. name end

local function number(h, field) return tonumber(h[field] or 0) end

-- A call of a command costs more here than the command: what a script changes in hashes is gathered, and written once.
local counts, dirty, clocks, advanced = {}, {}, {}, {}
local progress, successes = {}, {} -- CLASS:TENANT → cost done; {cost, estimate, run ms} of each job
local write_pace

local function put(job, h, field, value)
  local fields = dirty[job]
  if not fields then
    fields = {}
    dirty[job] = fields
  end
  local at = #fields
  fields[at + 1], fields[at + 2] = field, value
  h[field] = tostring(value)
end

local function write(job)
  if dirty[job] then redis.call('HSET', key('job', job), unpack(dirty[job])) end
  dirty[job] = nil
end

local function fetch(job)
  write(job)
  local flat = redis.call('HGETALL', key('job', job))
  if #flat == 0 then return nil end
  local h = {}
  for i = 1, #flat, 2 do h[flat[i]] = flat[i + 1] end
  return h
end

-- Whether the server was away, so that nobody could renew: the next reap is overdue, or the clock ran backwards.
local function was_away()
  local last, due = unpack(redis.call('HMGET', base .. 'pulse', 'last', 'due'))
  return last and (now < tonumber(last) or now > tonumber(due))
end

-- Until when nothing lapses. Before the reap that will notice that the server was away: a moment longer.
local function amnesty()
  if was_away() then return now + 1 end
  return tonumber(redis.call('HGET', base .. 'pulse', 'amnesty') or 0)
end

-- Until when a job is wanted: the latest of its watchers' expiries and of keep_until.
local function wanted_until(h)
  local latest = number(h, 'keep_until')
  for expiry in string.gmatch(h.watchers or '', '=(%d+)') do latest = math.max(latest, tonumber(expiry)) end
  return latest
end

-- An amnesty covers interest that could not be renewed, not interest that was taken back.
local function is_wanted(h)
  if now < wanted_until(h) then return true end
  return (h.watchers ~= '' or number(h, 'keep_until') > 0) and now < amnesty()
end

local function is_held(h, token) return h.state == 'running' and h.token == token end

-- Messages for the frontends that watch, one for each of them at the end of the script.
local posts = {}

local function post(h, entry)
  for frontend in string.gmatch(h.watchers or '', '([^ =]+)=') do
    posts[frontend] = posts[frontend] or {}
    table.insert(posts[frontend], entry)
  end
end

local function ring()
  local rung = redis.call('LPUSH', base .. 'bell', 1)
  if rung == 1 then redis.call('PEXPIRE', base .. 'bell', 60000) end
  if rung > 64 then redis.call('LTRIM', base .. 'bell', 0, 63) end
end

local function count(field, amount) counts[field] = (counts[field] or 0) + amount end

-- With a tenant's last waiting job its weight goes, with a model's the stretch in which something waited.
local function forget_count(load, field)
  redis.call('HDEL', load, field, (string.gsub(field, '^jobs:', 'weight:')))
  if field == 'jobs' then redis.call('HDEL', base .. 'pace', 'since', 'done') end
end

-- Writes what was gathered.
local function flush()
  local load = base .. 'load'
  for job in pairs(dirty) do write(job) end
  for field, amount in pairs(counts) do
    if amount ~= 0 and redis.call('HINCRBY', load, field, amount) == 0 then forget_count(load, field) end
  end
  for class in pairs(advanced) do
    redis.call('HSET', load, 'clock:' .. class, string.format('%.6f', clocks[class]))
    redis.call('ZREMRANGEBYSCORE', key('rest', class), '-inf', clocks[class])
  end
  if next(counts) then redis.call('PEXPIRE', load, IDLE_MS) end
  counts, advanced = {}, {}
  write_pace()
end

-- Jobs that no emission has ended: a reap tells of them, once. Beyond so many the oldest are forgotten.
local untold, MOST_UNTOLD = {}, 10000

local function note_end(job, h, code, reason)
  table.insert(untold, cmsgpack.pack({job, h.task, tonumber(code), reason, number(h, 'submitted'), number(h, 'taken'),
    now, number(h, 'attempts'), number(h, 'preempted'), number(h, 'last'), number(h, 'spent'), h.trace or ''}))
end

-- The end of every script that changes jobs: writes, and tells the frontends.
local function deliver()
  flush()
  if #untold > 0 then
    for at = 1, #untold, 1000 do -- Lua's stack does not hold any number of arguments.
      redis.call('RPUSH', base .. 'untold', unpack(untold, at, math.min(at + 999, #untold)))
    end
    redis.call('LTRIM', base .. 'untold', -MOST_UNTOLD, -1)
    redis.call('PEXPIRE', base .. 'untold', 3600000)
  end
  for frontend, entries in pairs(posts) do
    redis.call('PUBLISH', 'mr:mailbox:' .. frontend, cmsgpack.pack(entries))
  end
end

local function count_waiting(h, sign)
  count('jobs', sign)
  count('jobs:' .. h.tenant, sign)
  count('cost:' .. h.class, sign * number(h, 'cost'))
  count('cost:' .. h.class .. ':' .. h.tenant, sign * number(h, 'cost'))
end

local function count_bytes(h, sign)
  count('bytes', sign * number(h, 'bytes'))
  count('bytes:' .. h.tenant, sign * number(h, 'bytes'))
end

-- Start-time fair queueing between tenants (Goyal, Vin, Cheng 1996): a tenant's virtual time is its served cost divided
-- by its weight; the smallest goes first; one that comes back starts at the clock, the time of the tenant served last.
local function clock(class)
  clocks[class] = clocks[class] or tonumber(redis.call('HGET', base .. 'load', 'clock:' .. class) or 0)
  return clocks[class]
end

local function advance(class, tag)
  if tag > clock(class) then clocks[class], advanced[class] = tag, true end
end

local function keep_rest(h, tag)
  local rest = key('rest', h.class)
  if tag > clock(h.class) then
    redis.call('ZADD', rest, tag, h.tenant)
    redis.call('PEXPIRE', rest, IDLE_MS)
  else
    redis.call('ZREM', rest, h.tenant)
  end
end

local function charge(h, amount)
  if amount == 0 then return end
  local fair, rest = key('fair', h.class), key('rest', h.class)
  local step = amount / number(h, 'weight')
  if redis.call('ZSCORE', fair, h.tenant) then
    redis.call('ZINCRBY', fair, step, h.tenant)
  else
    local at = math.max(tonumber(redis.call('ZSCORE', rest, h.tenant) or 0), clock(h.class)) + step
    keep_rest(h, at)
  end
end

-- Settles what the tenant was charged for a job to what the job has cost so far.
local function settle(job, h)
  local spent = number(h, 'spent')
  charge(h, spent - number(h, 'charged'))
  put(job, h, 'charged', spent)
end

local function enqueue(job, h)
  if number(h, 'strikes') > 0 then
    redis.call('ZADD', base .. 'struck', h.sequence, job)
  else
    local fair, rest = key('fair', h.class), key('rest', h.class)
    redis.call('ZADD', key('waiting', h.class .. ':' .. h.tenant), h.sequence, job)
    if not redis.call('ZSCORE', fair, h.tenant) then
      local tag = math.max(tonumber(redis.call('ZSCORE', rest, h.tenant) or 0), clock(h.class))
      redis.call('ZADD', fair, tag, h.tenant)
      redis.call('ZREM', rest, h.tenant)
    end
  end
  if h.state ~= 'waiting' then put(job, h, 'state', 'waiting') end
  redis.call('HSET', base .. 'load', 'weight:' .. h.tenant, h.weight)
  count_waiting(h, 1)
end

local function dequeue(job, h)
  if redis.call('ZREM', base .. 'struck', job) == 0 then
    local waiting, fair = key('waiting', h.class .. ':' .. h.tenant), key('fair', h.class)
    redis.call('ZREM', waiting, job)
    if redis.call('ZCARD', waiting) == 0 then
      local tag = tonumber(redis.call('ZSCORE', fair, h.tenant) or 0)
      redis.call('ZREM', fair, h.tenant)
      keep_rest(h, tag)
    end
  end
  count_waiting(h, -1)
end

-- Forgets a job whose hash is gone: its lifetime ran out while nobody reaped.
local function drop(job)
  local tenant = string.match(job, '^[^:]+')
  for _, zset in ipairs({'struck', 'running', 'due'}) do redis.call('ZREM', base .. zset, job) end
  for _, class in ipairs(CLASSES) do
    local waiting = key('waiting', class .. ':' .. tenant)
    redis.call('ZREM', waiting, job)
    if redis.call('EXISTS', waiting) == 0 then redis.call('ZREM', key('fair', class), tenant) end
  end
end

local function leave_running(job, h)
  redis.call('ZREM', base .. 'running', job)
  put(job, h, 'token', '')
  put(job, h, 'holder', '')
  settle(job, h)
end

-- Notes a job's actual cost so far.
local function spend(job, h, cost)
  local fresh = cost - number(h, 'spent')
  if fresh <= 0 then return end
  put(job, h, 'spent', cost)
  local line = h.class .. ':' .. h.tenant
  progress[line] = (progress[line] or 0) + fresh
end

-- The one way to end a job.
local function finish(job, h, code, reason, message, field)
  local stream = key('results', job)
  redis.call('XADD', stream, h.last .. '-999999', 'code', code, 'reason', reason, 'message', message, 'field', field)
  if h.state == 'waiting' then dequeue(job, h) else leave_running(job, h) end
  redis.call('ZREM', base .. 'due', job)
  redis.call('DEL', key('payload', job .. ':' .. h.fingerprint))
  count_bytes(h, -1)
  redis.call('PEXPIRE', key('job', job), h.retain)
  redis.call('PEXPIRE', stream, h.retain)
  if tonumber(code) == 0 and number(h, 'epoch') == 1 and number(h, 'spent') > 0 then
    table.insert(successes, {number(h, 'spent'), number(h, 'cost'), now - number(h, 'taken')})
  end
  post(h, {job, tonumber(h.last), h.history, false, {tonumber(code), reason, message, field}})
  put(job, h, 'state', 'ended')
  put(job, h, 'ended', now)
  put(job, h, 'watchers', '')
  put(job, h, 'code', code)
  put(job, h, 'reason', reason)
  put(job, h, 'message', message)
  put(job, h, 'field', field)
  if not h.ender then note_end(job, h, code, reason) end
end

local function abandon(job, h) finish(job, h, 1, 'ABANDONED', 'nobody wanted the job any more', '') end

local function expire(job, h) finish(job, h, 4, 'DEADLINE_EXCEEDED', 'the job did not end before its deadline', '') end

-- Ends a job that is late or that nobody wants. Answers whether it did.
local function end_if_useless(job, h)
  if now >= number(h, 'deadline') then
    expire(job, h)
  elseif not is_wanted(h) then
    abandon(job, h)
  else
    return false
  end
  return true
end

-- A worker gives a leased job back, to the front of its tenant's queue and without a strike. Answers whether it waits.
local function hand_back(job, h, cost)
  spend(job, h, cost)
  if end_if_useless(job, h) then return false end
  leave_running(job, h)
  enqueue(job, h)
  return true
end
