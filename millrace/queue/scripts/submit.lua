-- Accepts a job: bounds, admission and enqueue in one step. A large payload is in its key already.
--
-- KEYS[1]  start of the model's keys
-- ARGV     1 job  2 tenant  3 class  4 weight  5 cost  6 fingerprint  7 payload bytes  8 timeout ms
--          9 resume window ms  10 wanted to the deadline (0, 1)  11 retention after the end, ms  12 watcher or ''
--          13 interest ms  14 not after (time: the claim on the job's name is good until then)
--          15 max waiting jobs  16 max waiting cost  17 max waiting jobs of a tenant  18 max payload bytes
--          19 task  20 the payload, where it is small, or ''
--          21 how long jobs may wait for a first worker, ms (-1: there is a worker)
--          22 trace context, or ''
-- Answers  {'queued'} | {'exists', fingerprint} | {'late'} | {'bare'}, where the payload is gone | {'unserved'}, where no
--          worker has come in time | a refusal of admission.lua; a payload that is of no use goes
--
-- Repeating the call is safe: the job exists then, and the answer says so.

local job, tenant = ARGV[1], ARGV[2]
local payload = key('payload', job .. ':' .. ARGV[6])
local known, state = unpack(redis.call('HMGET', key('job', job), 'fingerprint', 'state'))
if known then
  if known ~= ARGV[6] or state == 'ended' then redis.call('DEL', payload) end
  return {'exists', known}
end
if now > tonumber(ARGV[14]) then return {'late'} end

local function refuse(answer)
  redis.call('DEL', payload)
  return answer
end

local patience = tonumber(ARGV[21])
if patience >= 0 then
  local waiting, since = unpack(redis.call('HMGET', base .. 'load', 'jobs', 'unserved'))
  if not (waiting and since) then
    redis.call('HSET', base .. 'load', 'unserved', now)
  elseif now - since > patience then
    return refuse({'unserved'})
  end
end

local asked = {class = ARGV[3], tenant = tenant, weight = ARGV[4], cost = ARGV[5], bytes = ARGV[7]}
local refused = refusal(asked, tonumber(ARGV[8]),
  {jobs = tonumber(ARGV[15]), cost = tonumber(ARGV[16]), tenant = tonumber(ARGV[17]), bytes = tonumber(ARGV[18])})
if refused then return refuse(refused) end

local lifetime = tonumber(ARGV[8]) + 60000
if ARGV[20] ~= '' then
  redis.call('SET', payload, ARGV[20], 'PX', lifetime)
elseif redis.call('PEXPIRE', payload, lifetime) == 0 then
  return {'bare'}
end

local deadline = now + tonumber(ARGV[8])
local window, keep_until, watchers = tonumber(ARGV[9]), 0, ''
if ARGV[12] ~= '' then
  local expiry = now + tonumber(ARGV[13])
  watchers = ARGV[12] .. '=' .. expiry .. ' '
  if window > 0 then keep_until = expiry + window end
end
if ARGV[10] == '1' then keep_until = deadline end

local h = {
  state = 'waiting', tenant = tenant, class = ARGV[3], weight = ARGV[4], cost = ARGV[5], fingerprint = ARGV[6],
  task = ARGV[19], bytes = ARGV[7], deadline = tostring(deadline), window = ARGV[9], kept = ARGV[10],
  keep_until = tostring(keep_until), watchers = watchers, retain = ARGV[11], submitted = tostring(now),
  sequence = tostring(redis.call('HINCRBY', base .. 'load', 'sequence', 1)), strikes = '0', attempts = '0',
  epoch = '0', token = '', holder = '', base = '0', last = '0', history = string.rep('\0', 8), spent = '0',
  charged = '0', preempted = '0', trace = ARGV[22],
}
local flat = {}
for field, value in pairs(h) do
  table.insert(flat, field)
  table.insert(flat, value)
end
redis.call('HSET', key('job', job), unpack(flat))
redis.call('PEXPIRE', key('job', job), deadline - now + tonumber(ARGV[11]) + ORPHAN_MS)
count_bytes(h, 1)
enqueue(job, h)
redis.call('ZADD', base .. 'due', math.min(deadline, wanted_until(h)), job)
ring()
flush()
return {'queued'}
