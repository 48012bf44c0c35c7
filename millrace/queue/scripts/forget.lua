-- Removes an ended job that cannot be asked for again, once it has been delivered.
--
-- KEYS[1]  start of the model's keys
-- ARGV     1 job
-- Answers  1 where it was removed, 0 where it is kept or gone
--
-- Repeating the call is safe: what is gone stays gone.

local h = fetch(ARGV[1])
if not h or h.state ~= 'ended' then return 0 end
redis.call('DEL', key('job', ARGV[1]), key('results', ARGV[1]))
return 1
