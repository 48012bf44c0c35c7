-- Removes ended jobs that cannot be asked for again, once they have been delivered.
--
-- KEYS[1]  start of the model's keys
-- ARGV     the jobs
-- Answers  for each 1 where it is gone, 0 where it is kept
--
-- Repeating the call is safe: what is gone stays gone.

local answers = {}
for at, job in ipairs(ARGV) do
  local state = redis.call('HGET', key('job', job), 'state')
  if state == 'ended' then
    redis.call('DEL', key('job', job), key('results', job))
    state = false
  end
  answers[at] = state and 0 or 1
end
return answers
