-- Appends what one engine step added, job by job, ends the jobs that are complete, and tells the frontends.
--
-- KEYS[1]  start of the model's keys
-- ARGV     1 lease ms  2 largest result in bytes that a mailbox carries; then 12 for each job:
--          job  token  offset (0: no result)  history  result  ends (0, 1)  code  reason  message  cost so far  field
--          timing (serialised; '' where it does not end)
-- Answers  one verdict for each job: ok | duplicate | lost | gap | unwanted
--
-- Repeating the call is safe: an entry at this offset under this token, or an end by this token, is `duplicate`, which
-- is success. That is asked before the token, since the end clears it.

local lease_ms, mailbox_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local verdicts = {}

local function emitted_before(job, h, token, offset)
  if offset == 0 then return h.ender == token end
  if offset > number(h, 'last') then return false end
  local entry = redis.call('XRANGE', key('results', job), offset .. '-0', offset .. '-0')[1]
  return entry and entry[2][2] == token
end

local function emit(at)
  local job, token, offset, history, body = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4]
  local h = fetch(job)
  if not h then return 'lost' end
  if emitted_before(job, h, token, offset) then return 'duplicate' end
  if not is_held(h, token) then return 'lost' end
  if offset ~= 0 and offset ~= number(h, 'last') + 1 then return 'gap' end
  if end_if_useless(job, h) then return 'unwanted' end
  if offset ~= 0 then
    redis.call('XADD', key('results', job), offset .. '-0', 'token', token, 'history', history, 'body', body)
    put(job, h, 'last', offset)
    put(job, h, 'history', history)
    put(job, h, 'strikes', 0)
    post(h, {job, offset, history, #body <= mailbox_bytes and body, false})
  end
  spend(job, h, tonumber(ARGV[at + 9]))
  if ARGV[at + 5] == '1' then
    put(job, h, 'ender', token)
    put(job, h, 'timing', ARGV[at + 11])
    finish(job, h, ARGV[at + 6], ARGV[at + 7], ARGV[at + 8], ARGV[at + 10])
  else
    redis.call('ZADD', base .. 'running', now + lease_ms, job)
  end
  return 'ok'
end

for at = 3, #ARGV, 12 do table.insert(verdicts, emit(at)) end
deliver()
return verdicts
