-- Writes down what is wanted of a model of a repository. A script of its own slot, without the prelude.
--
-- KEYS[1]  the commands (a hash: REPOSITORY/NAME → JSON; its field 'serial' has the newest serial number)
-- ARGV     1 the field  2 verb
-- Answers  the command's serial number: higher than all before it, also behind a server that has lost them, since it is
--          not lower than the time in milliseconds
--
-- Repeating the call is safe: the same command gets a newer number.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local serial = math.max(now, tonumber(redis.call('HGET', KEYS[1], 'serial') or 0) + 1)
local number = string.format('%.0f', serial)
redis.call('HSET', KEYS[1], 'serial', number, ARGV[1], string.format('{"serial":%s,"verb":"%s","at_ms":%.0f}', number, ARGV[2], now))
return serial
