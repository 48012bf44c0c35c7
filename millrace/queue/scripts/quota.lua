-- What one tenant takes of the whole fleet. A script of its own slot, without the prelude.
--
-- KEYS[1]  start of the tenant's keys (mr:quota:{TENANT}:), from which two are made:
--            rates    hash  requests, tokens: when the bucket will be full again (a time)
--            jobs     hash  JOB → "NONCE taken until request_ms token_ms cost": what holds a place, and what it has paid
-- ARGV     take JOB NONCE lifetime_ms cost requests_per_minute tokens_per_minute concurrent_jobs (0: no bound)
--          settle JOB cost    the job has ended, and has cost so much; '': as was estimated
--          undo JOB NONCE     the job was not queued after all
-- Answers  take: {'taken', JOB …}, {'held'} (by an earlier take of the job), {'requests', wait ms}, {'tokens', wait ms},
--          {'jobs', JOB …}: too many hold places. The jobs are some that hold places, at random: have they ended?
--          settle, undo: 1 where the job held a place, else 0
--
-- The buckets are those of the Generic Cell Rate Algorithm (ITU-T I.371): one minute deep, and a number each. A job that
-- costs more than a minute's tokens passes when its bucket is full, and is paid off afterwards.
--
-- Repeating the call is safe: a place is taken once, and given back once, with what was paid for it.

local rates, jobs = KEYS[1] .. 'rates', KEYS[1] .. 'jobs'
local MINUTE_MS, ROUNDING_MS, IDLE_MS = 60000, 0.5, 60000
local FRESH_MS = 10000 -- a job that took its place a shorter time ago may not be queued yet
local FEW, MANY = 4, 64

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local verb, job = ARGV[1], ARGV[2]

local function read(text)
  local nonce, taken, till, request_ms, token_ms, cost = string.match(text, '(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)')
  return {nonce = nonce, taken = tonumber(taken), till = tonumber(till), request_ms = tonumber(request_ms),
    token_ms = tonumber(token_ms), cost = tonumber(cost)}
end

local function full_at(bucket) return tonumber(redis.call('HGET', rates, bucket) or 0) end

local function pay(bucket, ms)
  if ms == 0 then return end
  local full = full_at(bucket) + ms
  if ms > 0 then full = math.max(full, now + ms) end
  redis.call('HSET', rates, bucket, string.format('%.3f', full))
  local last = math.max(full_at('requests'), full_at('tokens'))
  redis.call('PEXPIRE', rates, math.ceil(math.max(last - now, 0)) + IDLE_MS)
end

-- How long until the bucket lets this much through; 0: now.
local function wait_ms(bucket, ms)
  local ahead = math.max(full_at(bucket) - now, 0)
  return ms > 0 and math.ceil(math.max(ahead + math.min(ms, MINUTE_MS) - MINUTE_MS - ROUNDING_MS, 0)) or 0
end

local function leave()
  local text = redis.call('HGET', jobs, job)
  if text then redis.call('HDEL', jobs, job) end
  return text and read(text)
end

if verb == 'settle' then
  local held = leave()
  if not held then return 0 end
  if ARGV[3] ~= '' and held.cost > 0 then pay('tokens', held.token_ms * (tonumber(ARGV[3]) / held.cost - 1)) end
  return 1
end

if verb == 'undo' then
  local text = redis.call('HGET', jobs, job)
  if not text or read(text).nonce ~= ARGV[3] then return 0 end
  local held = leave()
  pay('requests', -held.request_ms)
  pay('tokens', -held.token_ms)
  return 1
end

-- Jobs that may have ended; those that must have are dropped.
local function sample(count, answer)
  local drawn = redis.call('HRANDFIELD', jobs, count, 'WITHVALUES')
  for at = 1, #drawn, 2 do
    local held = read(drawn[at + 1])
    if held.till <= now then
      redis.call('HDEL', jobs, drawn[at])
    elseif held.taken + FRESH_MS <= now then
      table.insert(answer, drawn[at])
    end
  end
  return answer
end

local lifetime, cost = tonumber(ARGV[4]), tonumber(ARGV[5])
local requests, tokens, places = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
if redis.call('HEXISTS', jobs, job) == 1 then return {'held'} end

if places > 0 and redis.call('HLEN', jobs) >= places then
  local answer = sample(MANY, {'jobs'})
  if redis.call('HLEN', jobs) >= places then return answer end
end

local request_ms = requests > 0 and MINUTE_MS / requests or 0
local token_ms = tokens > 0 and cost * MINUTE_MS / tokens or 0
for _, bucket in ipairs({{'requests', request_ms}, {'tokens', token_ms}}) do
  local wait = wait_ms(bucket[1], bucket[2])
  if wait > 0 then return {bucket[1], wait} end
end
pay('requests', request_ms)
pay('tokens', token_ms)
local till = now + lifetime
redis.call('HSET', jobs, job, string.format('%s %d %d %.6f %.6f %d', ARGV[3], now, till, request_ms, token_ms, cost))
if redis.call('PTTL', jobs) < lifetime + IDLE_MS then redis.call('PEXPIRE', jobs, lifetime + IDLE_MS) end
return sample(FEW, {'taken'})
