-- Renews a frontend's interest in jobs, and says how they stand.
--
-- KEYS[1]  start of the model's keys
-- ARGV     1 frontend  2 interest ms; then the jobs
-- Answers  for each job {state or '', last offset}
--
-- Repeating the call is safe: it only moves the expiry of the frontend's interest.

local expiry = now + tonumber(ARGV[2])
local excused = now < amnesty()
local answers = {}
for at = 3, #ARGV do
  local job = ARGV[at]
  local h = fetch(job)
  if h and h.state ~= 'ended' and now >= number(h, 'deadline') then
    expire(job, h)
  elseif h and h.state ~= 'ended' then
    local others = {}
    for name, until_ms in string.gmatch(h.watchers, '([^ =]+)=(%d+)') do
      local counts = excused or tonumber(until_ms) > now
      if counts and name ~= ARGV[1] then table.insert(others, name .. '=' .. until_ms .. ' ') end
    end
    put(job, h, 'watchers', table.concat(others) .. ARGV[1] .. '=' .. expiry .. ' ')
    if number(h, 'window') > 0 then
      put(job, h, 'keep_until', math.max(number(h, 'keep_until'), expiry + number(h, 'window')))
    end
    redis.call('ZADD', base .. 'due', 'LT', wanted_until(h), job)
  end
  table.insert(answers, h and {h.state, number(h, 'last')} or {'', 0})
end
deliver()
return answers
