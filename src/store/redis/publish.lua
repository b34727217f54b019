-- Publishes drafts on a stream, all or none. For Redis 5 and later, and Valkey.
--
-- KEYS[1]   the stream
-- KEYS[2…]  the idempotency keys of those drafts that have one, in their order
-- ARGV[1]   how many entries the stream keeps, at least
-- ARGV[2]   the newest id that the caller has seen
-- ARGV[3]   how long an idempotency key is known, in milliseconds
-- ARGV[4]   1 if a marker must be written, else 0
-- ARGV[5…]  four for each draft: whether it has a key (1 or 0), topic, event name or '', data
--
-- Returns an id for each draft.

-- Redis 5 and 6 can be set to replicate scripts by their text; then no script may write that has asked for
-- the time.
if redis.replicate_commands then redis.replicate_commands() end

local function split(id)
    return string.match(id, '^(%d+)-(%d+)$')
end

-- Compares decimal numbers as text: Lua's own numbers are exact up to 2^53 only.
local function is_less(a, b)
    return #a < #b or (#a == #b and a < b)
end

local function is_below(a, b)
    local a_millis, a_sequence = split(a)
    local b_millis, b_sequence = split(b)
    if a_millis == b_millis then return is_less(a_sequence, b_sequence) end
    return is_less(a_millis, b_millis)
end

-- The id before the next entry's. XINFO knows it even if that entry has been deleted.
local last = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
    local info = redis.call('XINFO', 'STREAM', KEYS[1])
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then last = info[i + 1] end
    end
end

-- Everything that can fail comes before the first entry. First, what is known of the keys.
local count = (#ARGV - 4) / 4
local key_of, id_of, unused = {}, {}, nil
local next_key = 2
for draft = 1, count do
    if ARGV[4 * draft + 1] == '1' then
        local key = KEYS[next_key]
        next_key = next_key + 1
        key_of[draft] = key
        id_of[key] = redis.call('GET', key) or ''
        if id_of[key] == '' then unused = key end
    end
end
-- May this user set keys? An empty one counts as none.
if unused then redis.call('SET', unused, '', 'PX', 1) end

local function add(id, ...)
    last = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], id, 'p', last, ...)
end

-- Where the stream has lost its end, ids would fall. A marker with a higher id comes first. The clock is that of
-- Redis, but ids must rise even if that is behind.
if ARGV[4] == '1' or is_below(last, ARGV[2]) then
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    local above = math.max(now, tonumber((split(last))), tonumber((split(ARGV[2]))))
    add(string.format('%.0f-0', above + 1), 'reset', ARGV[2])
end

local ids = {}
for draft = 1, count do
    local key = key_of[draft]
    local id = key and id_of[key] or ''
    if id == '' then
        local topic, name, data = ARGV[4 * draft + 2], ARGV[4 * draft + 3], ARGV[4 * draft + 4]
        if name == '' then
            add('*', 't', topic, 'd', data)
        else
            add('*', 't', topic, 'e', name, 'd', data)
        end
        id = last
        if key then
            redis.call('SET', key, id, 'PX', ARGV[3])
            -- The next line of the same body may have the same key.
            id_of[key] = id
        end
    end
    ids[draft] = id
end
return ids
