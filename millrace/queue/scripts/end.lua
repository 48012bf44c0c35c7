-- Ends a job on the caller's word (a cancel, or a job that cannot be queued for good).
--
-- KEYS[1]  start of the model's keys
-- ARGV     1 job  2 code  3 reason  4 message  5 field
-- Answers  1 where this call ended it, 0 where it had ended or is not known
--
-- Repeating the call is safe: an ended job is left as it is.

local h = fetch(ARGV[1])
if not h or h.state == 'ended' then return 0 end
finish(ARGV[1], h, ARGV[2], ARGV[3], ARGV[4], ARGV[5])
deliver()
return 1
