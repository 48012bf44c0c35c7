"""Faults to plant in the scripts, each a change of text. The machine must find every one of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """`old` becomes `new` in one script, or in what stands before it (`prelude`)."""

    name: str
    script: str
    old: str
    new: str = ""


FAULTS = [
    Fault(
        "emit does not ask whose lease it is",
        "emit",
        "if not is_held(h, token) then return 'lost' end",
        "if h.state ~= 'running' then return 'lost' end",
    ),
    Fault(
        "emit does not know what it has written",
        "emit",
        "if emitted_before(job, h, token, offset) then return 'duplicate' end",
    ),
    Fault("emit leaves gaps", "emit", "offset ~= number(h, 'last') + 1", "offset < number(h, 'last') + 1"),
    Fault("emit does not renew the lease", "emit", "redis.call('ZADD', base .. 'running', now + lease_ms, job)"),
    Fault("a result does not clear the strikes", "emit", "put(job, h, 'strikes', 0)"),
    Fault("emit writes for nobody", "emit", "if end_if_useless(job, h) then return 'unwanted' end"),
    Fault("a result is not told", "emit", "post(h, {job, offset, history, #body <= mailbox_bytes and body, false})"),
    Fault("take leaves the job in its line", "take", "dequeue(job, h)\n"),
    Fault("take does not remember its answer", "take", "if before[1] == sequence then return before[2] end"),
    Fault("take hands out what does not fit", "take", "if h and number(h, 'cost') > largest then", "if false then"),
    Fault("take gives a struck job to a busy worker", "take", "if alone then", "if true then"),
    Fault("two workers make room for one job", "take", "if holder and holder ~= worker then return false end"),
    Fault(
        "take serves the newest first",
        "take",
        "redis.call('ZRANGE', key('waiting'",
        "redis.call('ZREVRANGE', key('waiting'",
    ),
    Fault("take serves batch jobs first", "prelude", "{'30', '20', '10'}", "{'10', '20', '30'}"),
    Fault("equals take each other's places", "take", "number(h, 'class') < tonumber(class)", "true"),
    Fault("giving way is an attempt", "take", "put(job, h, 'attempts', number(h, 'attempts') - 1)"),
    Fault(
        "a place is given that another holds", "take", "h and is_held(h, ARGV[offer + 1])", "h and h.state == 'running'"
    ),
    Fault("who gives way is not told", "take", "table.insert(given, token)"),
    Fault("a lease begins no epoch", "take", "number(h, 'epoch') + 1", "math.max(number(h, 'epoch'), 1)"),
    Fault("the served tenant pays nothing", "prelude", "local step = amount / number(h, 'weight')", "local step = 0"),
    Fault("weights do not count", "prelude", "local step = amount / number(h, 'weight')", "local step = amount"),
    Fault(
        "another tenant pays",
        "prelude",
        "redis.call('ZINCRBY', fair, step, h.tenant)",
        "redis.call('ZINCRBY', fair, step, redis.call('ZRANGE', fair, -1, -1)[1])",
    ),
    Fault("what was not used is not given back", "prelude", "charge(h, spent - number(h, 'charged'))"),
    Fault("who leaves is forgiven", "prelude", "if tag > clock(h.class) then", "if false then"),
    Fault(
        "release adds a strike",
        "prelude",
        "leave_running(job, h)\n  enqueue(job, h)",
        "leave_running(job, h)\n  put(job, h, 'strikes', 1)\n  enqueue(job, h)",
    ),
    Fault(
        "release goes to the back",
        "prelude",
        "key('waiting', h.class .. ':' .. h.tenant), h.sequence, job)",
        "key('waiting', h.class .. ':' .. h.tenant), redis.call('HINCRBY', base .. 'load', 'sequence', 1), job)",
    ),
    Fault("release does not ask whose lease it is", "release", "is_held(h, ARGV[at + 1])", "h.state == 'running'"),
    Fault("renew revives a lost lease", "renew", "not is_held(h, ARGV[at + 1])", "h.state ~= 'running'"),
    Fault("reap knows no amnesty", "reap", "and now >= amnesty() then lapse", "then lapse"),
    Fault("nobody waits for reap to notice", "prelude", "if was_away() then return now + 1 end"),
    Fault("a lapse is never a strike", "reap", "if h.last == h.base then", "if false then"),
    Fault("every lapse is a strike", "reap", "if h.last == h.base then", "if true then"),
    Fault("poison has four tries", "prelude", "MAX_STRIKES, MAX_ATTEMPTS = 3", "MAX_STRIKES, MAX_ATTEMPTS = 4"),
    Fault(
        "a lapsed lease keeps its token",
        "prelude",
        "put(job, h, 'token', '')\n  put(job, h, 'holder', '')",
    ),
    Fault("no deadline holds", "prelude", "if now >= number(h, 'deadline') then", "if false then"),
    Fault("a watched job is watched for ever", "watch", "now + tonumber(ARGV[2])", "now + 1e9"),
    Fault("one watcher drives out the others", "watch", "if counts and name", "if false and name"),
    Fault("nobody's job goes on", "unwatch", "abandon(job, h)"),
    Fault(
        "an end can come twice", "end", "if not h or h.state == 'ended' then return 0 end", "if not h then return 0 end"
    ),
    Fault("the end is not told", "prelude", "post(h, {job, tonumber(h.last)", "tostring({job, tonumber(h.last)"),
    Fault(
        "the end is not written",
        "prelude",
        "redis.call('XADD', stream, h.last .. '-999999'",
        "tostring(stream, h.last .. '-999999'",
    ),
    Fault("an end is told of by its worker and by a reap", "prelude", "if not h.ender then note_end", "do note_end"),
    Fault(
        "an end is told of by every reap",
        "reap",
        "redis.call('LPOP', base .. 'untold', ARGV[3])",
        "redis.call('LRANGE', base .. 'untold', 0, ARGV[3] - 1)",
    ),
    Fault("who gave way is not counted", "take", "put(job, h, 'preempted', number(h, 'preempted') + 1)"),
    Fault("the flight record is not kept", "emit", "put(job, h, 'timing', ARGV[at + 11])"),
    Fault("an ended job's results stay", "prelude", "redis.call('PEXPIRE', stream, h.retain)"),
    Fault("an ended job's payload stays", "prelude", "redis.call('DEL', key('payload', job .. ':' .. h.fingerprint))"),
    Fault("an ended job's bytes still count", "prelude", "count_bytes(h, -1)"),
    Fault("a job that leaves the line still counts", "prelude", "count_waiting(h, -1)"),
    Fault("one job too many waits", "prelude", "if held + amount > most then", "if held + amount > most + 1 then"),
    Fault("a tenant has no bound", "prelude", "if own >= limits.tenant then", "if false then"),
    Fault("a tenant may fill the other half", "prelude", "own + amount > most * share then", "false then"),
    Fault("every tenant has the same share", "prelude", "sum = sum + (tonumber(weight) or 1)", "sum = sum + 1"),
    Fault("batch jobs may fill everything", "prelude", "['10'] = 0.5", "['10'] = 1"),
    Fault("a weight outlives its tenant's jobs", "prelude", "(string.gsub(field, '^jobs:', 'weight:'))", "'-'"),
    Fault(
        "a tenant's bytes are not given back",
        "prelude",
        "count('bytes:' .. h.tenant, sign",
        "count('bytes:' .. h.tenant, 1",
    ),
    Fault(
        "a job is accepted without a lifetime",
        "submit",
        "redis.call('PEXPIRE', key('job', job)",
        "tostring(key('job', job)",
    ),
    Fault("a name goes to the second request", "claim", "if known[1] and", "if false and"),
    Fault("a running job is forgotten", "forget", "if state == 'ended' then", "if state then"),
]
