-- Hands leased jobs back, to the front of their tenants' queues and without a strike.
--
-- KEYS[1]  start of the model's keys
-- ARGV     3 for each job: job  token  cost so far
-- Answers  one verdict for each job: ok | lost
--
-- Repeating the call is safe: the first call clears the token, so the second finds the job lost and changes nothing.

local verdicts = {}
for at = 1, #ARGV, 3 do
  local job = ARGV[at]
  local h = fetch(job)
  local held = h and is_held(h, ARGV[at + 1])
  if held then hand_back(job, h, tonumber(ARGV[at + 2])) end
  table.insert(verdicts, held and 'ok' or 'lost')
end
if #verdicts > 0 then ring() end
deliver()
return verdicts
