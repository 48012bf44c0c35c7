-- Claims the name of a job within its tenant, or tells who has it. A script of its own slot, without the prelude.
--
-- KEYS[1]  the job's index entry
-- ARGV     1 model  2 fingerprint  3 lifetime ms (0: give the claim up)  4 claim to replace or give up (its `claimed`
--          time; '' for none)
-- Answers  {model, fingerprint, claimed, now}: the claim that stands
--
-- Repeating the call is safe: the claim that stands is the caller's own then, and says the same.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'model', 'fingerprint', 'claimed')
if known[1] and (ARGV[4] == '' or ARGV[4] ~= known[3]) then
  return {known[1], known[2], tonumber(known[3]), now}
end
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[1])
  return {ARGV[1], ARGV[2], 0, now}
end
redis.call('HSET', KEYS[1], 'model', ARGV[1], 'fingerprint', ARGV[2], 'claimed', now)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {ARGV[1], ARGV[2], now, now}
