-- Extends the leases that a worker still holds.
--
-- KEYS[1]  start of the model's keys
-- ARGV     1 lease ms; then 2 for each job: job  token
-- Answers  one verdict for each job: ok | lost | unwanted
--
-- Repeating the call is safe: an extension by the same holder only moves the expiry.

local verdicts = {}
for at = 2, #ARGV, 2 do
  local job = ARGV[at]
  local h = fetch(job)
  local verdict = 'ok'
  if not h or not is_held(h, ARGV[at + 1]) then
    verdict = 'lost'
  elseif end_if_useless(job, h) then
    verdict = 'unwanted'
  else
    redis.call('ZADD', base .. 'running', now + tonumber(ARGV[1]), job)
  end
  table.insert(verdicts, verdict)
end
deliver()
return verdicts
