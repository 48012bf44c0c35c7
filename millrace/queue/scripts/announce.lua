-- Writes entries of a registry whose fields expire one by one, and drops those that have, or that no script of ours has
-- written, as far as a few looks at random find them: readers know what has expired, and a look at every entry would cost
-- each of many processes the more, the more they are. A script of its own slot, without the prelude.
--
-- KEYS[1]  the registry (a hash: name → "EXPIRY JSON")
-- ARGV     1 lifetime ms (0: remove); then 2 for each entry: name  JSON
--
-- Repeating the call is safe: it only moves the expiry.

local LOOKS = 16

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lifetime = tonumber(ARGV[1])
for at = 2, #ARGV, 2 do
  if lifetime == 0 then
    redis.call('HDEL', KEYS[1], ARGV[at])
  else
    redis.call('HSET', KEYS[1], ARGV[at], (now + lifetime) .. ' ' .. ARGV[at + 1])
  end
end
local entries = redis.call('HRANDFIELD', KEYS[1], LOOKS, 'WITHVALUES')
for at = 1, #entries, 2 do
  if tonumber(string.match(entries[at + 1], '^%d+') or 0) <= now then redis.call('HDEL', KEYS[1], entries[at]) end
end
if lifetime > math.max(redis.call('PTTL', KEYS[1]), 0) then redis.call('PEXPIRE', KEYS[1], lifetime) end
return now
