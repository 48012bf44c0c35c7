-- Whether a further job is let in: bounds, and the wait that it would have. Follows pace.lua; for submit alone.
--
-- Of each bound a class may fill a part; the rest is kept for higher ones. The first half of that part is anybody's; the
-- other half is for tenants that hold less than their share of it, by weight, of those that wait in the class.

local ROOM = {['30'] = 1, ['20'] = 0.8, ['10'] = 0.5}
local TENANTS = 32 -- weights of more are not looked up: each further one counts as 1
local MARGIN = 0.9 -- how much of its time a job may be expected to take
local UNSURE = 0.5 -- runs by which a wait may be longer: what holds the slots now may have begun just now

local function read(kind, fields)
  local values = redis.call('HMGET', base .. kind, unpack(fields))
  local found = {}
  for at, field in ipairs(fields) do found[field] = values[at] end
  return found
end

-- The tenant's part of what its class is given, if all that wait now go on waiting.
local function share_of(h)
  local fair, sum = key('fair', h.class), tonumber(h.weight)
  local others = {}
  for _, name in ipairs(redis.call('ZRANGE', fair, 0, TENANTS)) do
    if name ~= h.tenant then table.insert(others, 'weight:' .. name) end
  end
  for _, weight in pairs(#others > 0 and read('load', others) or {}) do sum = sum + (tonumber(weight) or 1) end
  return tonumber(h.weight) / (sum + math.max(redis.call('ZCARD', fair) - #others - 1, 0))
end

-- The bound that the job would break, and how much of what its queue, or its tenant, holds must go before it fits.
local function broken_bound(h, load, share, limits)
  for _, bound in ipairs({'jobs', 'cost', 'bytes'}) do
    local amount = bound == 'jobs' and 1 or number(h, bound)
    local held, own = number(load, bound), number(load, bound .. ':' .. h.tenant)
    local most = math.max(limits[bound] * ROOM[h.class], 1)
    if held + amount > most then return bound, (held + amount - most) / math.max(held, 1) end
    if own > 0 and held + amount > most / 2 and own + amount > most * share then
      return 'tenant', (own + amount - most * share) / own
    end
  end
  local own = number(load, 'jobs:' .. h.tenant)
  if own >= limits.tenant then return 'tenant', (own + 1 - limits.tenant) / own end
end

-- Cost done in a millisecond while something waits; nil where that was never seen.
local function capacity(seen)
  local cost, ms = number(seen, 'full_cost'), number(seen, 'full_ms')
  local stretch = now - number(seen, 'since')
  if seen.since and stretch >= STRETCH_MS then
    local kept = fade(stretch, PACE_MS)
    cost, ms = cost * kept + number(seen, 'done'), ms * kept + stretch
  end
  return cost > 0 and ms > 0 and cost / ms or nil
end

-- What the job's line is served in a millisecond: what higher classes and the class's other tenants have left while
-- something waited. A line that was served less than half of its share has not asked for it: it will get that.
local function line_pace(h, seen, full, share)
  local all, higher = 0, 0
  for _, class in ipairs(CLASSES) do
    local work = lately(seen['work:' .. class])
    all = all + work
    if tonumber(class) > tonumber(h.class) then higher = higher + work end
  end
  local part = full / math.max(all, full * MIX_MS)
  local own = lately(seen['work:' .. h.class .. ':' .. h.tenant]) * part
  local others = lately(seen['work:' .. h.class]) * part - own
  local left = math.max(full - higher * part, full / 100)
  return math.max(own < left * share / 2 and left * share or left * share / 2, left - others)
end

-- Milliseconds: until the job would be taken, for how long it would run, until nothing waits any more; nil where nothing
-- is known yet.
local function outlook(h, load, share)
  local line = h.class .. ':' .. h.tenant
  local seen = read('pace', {'full_cost', 'full_ms', 'since', 'done', 'mean_cost', 'mean_estimate', 'mean_run_ms',
    'work:30', 'work:20', 'work:10', 'work:' .. line})
  local full = capacity(seen)
  if not full then return nil end
  local real, run = 1, 0
  if seen.mean_estimate then
    real = number(seen, 'mean_cost') / number(seen, 'mean_estimate')
    run = number(seen, 'mean_run_ms') * number(h, 'cost') / number(seen, 'mean_estimate')
  end
  local higher = 0
  for _, class in ipairs(CLASSES) do
    if tonumber(class) > tonumber(h.class) then higher = higher + number(load, 'cost:' .. class) end
  end
  local wait = real * (higher / full + number(load, 'cost:' .. line) / line_pace(h, seen, full, share))
  return wait, run, real * load.cost / full
end

-- What waits and what is held, for the model and for the tenant.
local function held_now(tenant)
  local load = read('load', {'jobs', 'bytes', 'jobs:' .. tenant, 'bytes:' .. tenant, 'cost:30', 'cost:20', 'cost:10',
    'cost:30:' .. tenant, 'cost:20:' .. tenant, 'cost:10:' .. tenant})
  load.cost, load['cost:' .. tenant] = 0, 0
  for _, class in ipairs(CLASSES) do
    load.cost = load.cost + number(load, 'cost:' .. class)
    load['cost:' .. tenant] = load['cost:' .. tenant] + number(load, 'cost:' .. class .. ':' .. tenant)
  end
  return load
end

-- {'full', bound, retry ms} | {'slow', wait ms, retry ms} | nil. Retry is when the job would be let in if no other came;
-- -1 where that is not known.
local function refusal(h, timeout, limits)
  local load, share = held_now(h.tenant), share_of(h)
  local wait, run, all = outlook(h, load, share)
  local bound, excess = broken_bound(h, load, share, limits)
  if bound then
    return {'full', bound, wait and math.ceil(excess * (bound == 'tenant' and wait or all)) or -1}
  end
  local late = wait and wait + run * (1 + UNSURE) - timeout * MARGIN
  if late and wait > 0 and late > 0 then return {'slow', math.ceil(wait), math.ceil(math.min(wait, late))} end
end
