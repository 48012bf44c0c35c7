-- Takes back a frontend's interest in jobs; one that nobody wants any more ends at once.
--
-- KEYS[1]  start of the model's keys
-- ARGV     1 frontend; then the jobs
-- Answers  how many jobs ended by it
--
-- Repeating the call is safe: interest that is gone stays gone.

local ended = 0
for at = 2, #ARGV do
  local job = ARGV[at]
  local h = fetch(job)
  if h and h.state ~= 'ended' then
    local others = {}
    for name, until_ms in string.gmatch(h.watchers, '([^ =]+)=(%d+)') do
      if name ~= ARGV[1] then table.insert(others, name .. '=' .. until_ms .. ' ') end
    end
    put(job, h, 'watchers', table.concat(others))
    if is_wanted(h) then
      redis.call('ZADD', base .. 'due', 'LT', wanted_until(h), job)
    else
      abandon(job, h)
      ended = ended + 1
    end
  end
end
deliver()
return ended
