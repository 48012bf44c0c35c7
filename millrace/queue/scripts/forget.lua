-- Removes ended jobs that cannot be asked for again, once they have been delivered.
--
-- KEYS[1]  start of the model's keys
-- ARGV     the jobs
-- Answers  for each 1 where it was removed, 0 where it is kept or gone
--
-- Repeating the call is safe: what is gone stays gone.

local answers = {}
for at, job in ipairs(ARGV) do
  local state = redis.call('HGET', key('job', job), 'state')
  answers[at] = 0
  if state == 'ended' then
    redis.call('DEL', key('job', job), key('results', job))
    answers[at] = 1
  end
end
return answers
