-- Leases waiting jobs to a worker: by class, then by the tenants' virtual time, then first come first served.
--
-- KEYS[1]  start of the model's keys
-- ARGV     1 worker  2 take sequence number  3 how many jobs  4 largest cost of a job  5 nonce (random, new for each
--          sequence number)  6 lease ms  7 alone (1: the worker runs nothing, or only jobs that lost a strike there)
--          8 payload bytes after which no further job is leased  9 largest payload that comes with the lease
--          then 3 for each job that the worker would give back, lowest class first: job  token  cost so far
-- Answers  packed {hold, leases, given}; a lease is {job, token, epoch, strikes, attempts, last, history, cost,
--          fingerprint, submitted, first taken, deadline, taken, payload or false, class, task, preempted, trace};
--          given are tokens
--
-- Where there is no more room, each job of a higher class takes the place of the next one that was offered: that one
-- goes back to the front of its tenant's queue, without a strike, and as if this lease had been no attempt.
--
-- Repeating a sequence number is safe: the answer is kept, and given again. A lower one comes late, from a call that was
-- given up: it leases nothing.

local worker, sequence, room, largest = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local nonce, lease_ms, alone = ARGV[5], tonumber(ARGV[6]), ARGV[7] == '1'
local most_bytes, inline_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
local memory = key('take', worker)
local before = redis.call('HMGET', memory, 'sequence', 'reply')
if before[1] == sequence then return before[2] end
if before[1] and tonumber(sequence) < tonumber(before[1]) then return cmsgpack.pack({false, {}, {}}) end

local leases, bytes = {}, 0
local given, offer = {}, 10 -- tokens of what was given back; where ARGV has the next offered job
local ended, MOST_ENDED = 0, 256 -- heads of no use; behind so many the bell has the worker come again

local function lease(job, h)
  dequeue(job, h)
  local first = h.taken or tostring(now)
  local token = nonce .. '.' .. (#leases + 1)
  local epoch, attempts = number(h, 'epoch') + 1, number(h, 'attempts') + 1
  local price = math.max(number(h, 'cost'), number(h, 'spent'))
  charge(h, price - number(h, 'charged'))
  put(job, h, 'state', 'running')
  put(job, h, 'token', token)
  put(job, h, 'holder', worker)
  put(job, h, 'epoch', epoch)
  put(job, h, 'attempts', attempts)
  put(job, h, 'base', h.last)
  put(job, h, 'taken', first)
  put(job, h, 'charged', price)
  redis.call('XADD', key('results', job), h.last .. '-' .. epoch, 'epoch', epoch, 'holder', worker)
  redis.call('PEXPIRE', key('results', job), math.max(number(h, 'deadline') - now, 0) + number(h, 'retain') + ORPHAN_MS)
  redis.call('ZADD', base .. 'running', now + lease_ms, job)
  redis.call('ZADD', base .. 'due', 'LT', now + lease_ms, job)
  local inline = number(h, 'bytes') <= inline_bytes and redis.call('GET', key('payload', job .. ':' .. h.fingerprint))
  bytes = bytes + number(h, 'bytes')
  table.insert(leases, {job, token, epoch, number(h, 'strikes'), attempts, number(h, 'last'), h.history,
    number(h, 'cost'), h.fingerprint, number(h, 'submitted'), tonumber(first), number(h, 'deadline'), now, inline,
    number(h, 'class'), h.task, number(h, 'preempted'), h.trace or ''})
end

-- A head that may run, or nil where it was of no use and has been ended.
local function useful(job)
  local h = fetch(job)
  if not h then
    drop(job)
  elseif number(h, 'attempts') >= MAX_ATTEMPTS then
    finish(job, h, 13, 'TOO_MANY_ATTEMPTS', 'the job was given up after ' .. MAX_ATTEMPTS .. ' attempts', '')
  elseif not end_if_useless(job, h) then
    return h
  end
  ended = ended + 1
end

local function take_struck()
  while ended < MOST_ENDED do
    local head = redis.call('ZRANGE', base .. 'struck', 0, 0)[1]
    if not head then return false end
    local h = useful(head)
    if h then
      if alone then
        if number(h, 'cost') > largest then return false end
        redis.call('DEL', base .. 'hold')
        lease(head, h)
        return true
      end
      local holder = redis.call('GET', base .. 'hold')
      if holder and holder ~= worker then return false end
      redis.call('SET', base .. 'hold', worker, 'PX', lease_ms)
      return true
    end
  end
  return false
end

-- The next of the offered jobs that is held still, where its class is lower.
local function offered(class)
  while offer <= #ARGV do
    local h = fetch(ARGV[offer])
    if h and is_held(h, ARGV[offer + 1]) then return number(h, 'class') < tonumber(class) and h end
    offer = offer + 3
  end
end

local function give_back(h)
  local job, token, cost = ARGV[offer], ARGV[offer + 1], tonumber(ARGV[offer + 2])
  if hand_back(job, h, cost) then
    put(job, h, 'attempts', number(h, 'attempts') - 1)
    put(job, h, 'preempted', number(h, 'preempted') + 1)
  end
  table.insert(given, token)
  offer, room = offer + 3, room + 1
end

local function take_class(class)
  local fair = key('fair', class)
  local skipped = 0
  while bytes <= most_bytes and ended < MOST_ENDED do
    local lower = #leases >= room and offered(class)
    if #leases >= room and not lower then return end
    local tenant, tag = unpack(redis.call('ZRANGE', fair, skipped, skipped, 'WITHSCORES'))
    if not tenant then return end
    local head = redis.call('ZRANGE', key('waiting', class .. ':' .. tenant), 0, 0)[1]
    local h = useful(head)
    if h and number(h, 'cost') > largest then
      skipped = skipped + 1
    elseif h then
      if lower then give_back(lower) end
      advance(class, tonumber(tag))
      lease(head, h)
    end
  end
end

local hold = room > 0 and take_struck()
if not hold then
  for _, class in ipairs(CLASSES) do take_class(class) end
end
hold = hold and #leases == 0

flush()
local waiting = tonumber(redis.call('HGET', base .. 'load', 'jobs') or 0)
if #leases > 0 then redis.call('HDEL', base .. 'load', 'unserved') end
if (#leases > 0 or ended >= MOST_ENDED) and waiting > 0 then ring() end
deliver()
local reply = cmsgpack.pack({hold, leases, given})
redis.call('HSET', memory, 'sequence', sequence, 'reply', reply)
redis.call('PEXPIRE', memory, 2 * lease_ms)
return reply
