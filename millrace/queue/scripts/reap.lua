-- Ends what is overdue and requeues what a worker has lost; every process calls it each second.
--
-- KEYS[1]  start of the model's keys
-- ARGV     1 lease ms  2 how many jobs at the most
--          3 how many ends to tell of at the most
-- Answers  {how many jobs were due; as many as ARGV 2: call again, packed ends that no worker has told of}; an end is
--          {job, task, code, reason, submitted, first taken or 0, ended, attempts, preempted, last, cost, trace}
--
-- A gap of more than half a lease since the last call, or a clock that ran backwards, means that the server was away and
-- nobody could renew: nothing lapses then for one lease (an amnesty). Deadlines are the callers' and hold all the same.
-- After a clock that ran backwards every job is looked at, and no lease lasts longer than one from now.
--
-- Repeating the call is safe: it does what the clock says is due, once. An answer that is lost takes its ends with it.

local lease_ms = tonumber(ARGV[1])
local pulse = base .. 'pulse'
local last = tonumber(redis.call('HGET', pulse, 'last') or now)
if was_away() then
  redis.call('HSET', pulse, 'amnesty', now + lease_ms)
  redis.call('HDEL', pace, 'since', 'done')
end
if now < last then
  for _, job in ipairs(redis.call('ZRANGE', base .. 'running', 0, -1)) do
    redis.call('ZADD', base .. 'running', 'LT', now + lease_ms, job)
  end
  for _, job in ipairs(redis.call('ZRANGE', base .. 'due', 0, -1)) do
    redis.call('ZADD', base .. 'due', 'LT', now, job)
  end
end
redis.call('HSET', pulse, 'last', now, 'due', now + math.floor(lease_ms / 2))
redis.call('PEXPIRE', pulse, 86400000)
if redis.call('EXISTS', base .. 'due') == 1 then redis.call('PEXPIRE', base .. 'load', IDLE_MS) end

local function lapse(job, h)
  leave_running(job, h)
  if h.last == h.base then put(job, h, 'strikes', number(h, 'strikes') + 1) end
  if number(h, 'strikes') >= MAX_STRIKES then
    finish(job, h, 13, 'POISON_JOB', 'the job lost its worker ' .. MAX_STRIKES .. ' times without a result', '')
  else
    enqueue(job, h)
    ring()
  end
end

-- When a job is to be looked at again: at its next expiry, or when the amnesty is over.
local function next_look(job, h)
  local expiry = amnesty()
  if now >= expiry then
    expiry = wanted_until(h)
    if h.state == 'running' then
      expiry = math.min(expiry, tonumber(redis.call('ZSCORE', base .. 'running', job) or 0))
    end
  end
  return math.min(expiry, number(h, 'deadline'))
end

local due = redis.call('ZRANGEBYSCORE', base .. 'due', '-inf', now, 'LIMIT', 0, ARGV[2])
for _, job in ipairs(due) do
  local h = fetch(job)
  if not h then
    drop(job)
  elseif not end_if_useless(job, h) then
    local expiry = tonumber(redis.call('ZSCORE', base .. 'running', job) or 0)
    if h.state == 'running' and now >= expiry and now >= amnesty() then lapse(job, h) end
    if h.state ~= 'ended' then redis.call('ZADD', base .. 'due', next_look(job, h), job) end
  end
end
deliver()
return {#due, redis.call('LPOP', base .. 'untold', ARGV[3]) or {}}
