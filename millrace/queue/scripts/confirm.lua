-- Says what of some jobs stands here, and writes, so that a WAIT behind it on the same connection tells whether replicas
-- have all of that too. A script without the prelude, sent as text: its WAIT must follow in the same breath.
--
-- KEYS[1]  start of the model's keys
-- ARGV     4 for each job: job  offset (0: only that it exists)  history there  ended (1: its end stands here as well)
-- Answers  for each job 1 where all of it stands here, else 0
--
-- Repeating the call is safe: it changes no job.

local answers = {}
for at = 1, #ARGV, 4 do
  local job, offset = ARGV[at], tonumber(ARGV[at + 1])
  local last, history, state = unpack(redis.call('HMGET', KEYS[1] .. 'job:' .. job, 'last', 'history', 'state'))
  local stands = last and tonumber(last) >= offset and (ARGV[at + 3] == '0' or state == 'ended')
  if stands and offset > 0 then
    if tonumber(last) > offset then
      local entry = redis.call('XRANGE', KEYS[1] .. 'results:' .. job, offset .. '-0', offset .. '-0')[1]
      history = entry and entry[2][4]
    end
    stands = history == ARGV[at + 2]
  end
  table.insert(answers, stands and 1 or 0)
end
redis.call('SET', KEYS[1] .. 'barrier', '', 'PX', 60000)
return answers
