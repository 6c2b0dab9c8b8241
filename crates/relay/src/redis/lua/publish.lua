-- Publishes into a channel with history, in one step: idempotency, offset, append, trim, expiry, publish. The same for
-- nodes (EVALSHA) and for backends (FCALL tg_publish). `VERB`, PUBLISH or SPUBLISH, stands above.

-- How long an idempotency key is remembered, in seconds.
local IDEMPOTENT = 300
-- Tags and info stand in the envelope's header, which nodes read up to 64 KiB.
local MOST_HEADER = 30000

-- The options of a backend; nodes have two more, and check themselves what they send.
local OPTIONS = { tags = true, id = true, size = true, ttl = true, info = true, checked = true }
local USAGE = 'tags <json>, id <key>, size <n> or ttl <seconds>'

local function refuse(why)
  return redis.error_reply('ERR tidegate: ' .. why)
end

-- A number from 1 up, of nine digits at most.
local function count(value)
  return #value <= 9 and string.match(value, '^[1-9]%d*$') and tonumber(value) or nil
end

local function decoded(json)
  local strict = cjson.new()
  strict.decode_invalid_numbers(false)
  strict.decode_max_depth(128)
  return pcall(strict.decode, json)
end

-- JSON as it may stand in one line.
local function line(json)
  return (string.gsub(json, '[\r\n]', ' '))
end

-- Why tags are none, or nil.
local function wrong_tags(json)
  local fine, tags = decoded(json)
  if not fine or not string.match(json, '^%s*{') then
    return 'option tags must be a JSON object of strings'
  end
  for name, value in pairs(tags) do
    if type(value) ~= 'string' then
      return 'option tags must be a JSON object of strings: ' .. string.sub(tostring(name), 1, 64) .. ' is none'
    end
  end
  return nil
end

-- Why what is asked is refused, or nil.
local function wrong(data, options)
  if not decoded(data) then
    return 'the data is not one JSON value'
  end
  for _, name in ipairs({ 'size', 'ttl' }) do
    if options[name] and not count(options[name]) then
      return 'option ' .. name .. ' must be a whole number from 1 up, not ' .. string.sub(options[name], 1, 64)
    end
  end
  if options.id and (#options.id == 0 or #options.id > 256) then
    return 'option id must have 1 to 256 bytes'
  end
  for _, name in ipairs({ 'tags', 'info' }) do
    if options[name] and #options[name] > MOST_HEADER then
      return 'option ' .. name .. ' may have ' .. MOST_HEADER .. ' bytes at most'
    end
  end
  if options.info and not decoded(options.info) then
    return 'option info is not JSON'
  end
  return options.tags and wrong_tags(options.tags)
end

-- The envelope: see docs/adr/0003-wire-envelope.md.
local function seal(fields, options, data)
  for _, name in ipairs({ 'info', 'tags' }) do
    if options[name] then
      fields[#fields + 1] = '"' .. name .. '":' .. options[name]
    end
  end
  return '\1' .. '1 {' .. table.concat(fields, ',') .. '}\n' .. data
end

-- `args`: the data, then pairs of options. `kept`: size and ttl of the namespace, or nil where it keeps nothing.
local function publish(key, args, kept)
  local data, options = args[1], {}
  if not data then
    return refuse('the data is missing; after it come ' .. USAGE)
  end
  for at = 2, #args, 2 do
    local name = args[at]
    if not OPTIONS[name] then
      return refuse('unknown option ' .. string.sub(name, 1, 64) .. ': there are ' .. USAGE)
    end
    if not args[at + 1] then
      return refuse('option ' .. name .. ' has no value')
    end
    options[name] = args[at + 1]
  end
  local why = not options.checked and wrong(data, options)
  if why then
    return refuse(why)
  end
  for _, name in ipairs({ 'info', 'tags' }) do
    options[name] = options[name] and line(options[name])
  end
  local size = options.size and count(options.size) or kept and kept[1]
  local ttl = options.ttl and count(options.ttl) or kept and kept[2]
  if not size and not ttl then
    local plain = not options.tags and not options.info
    redis.call(VERB, key, plain and data or seal({}, options, data))
    return { 0, '' }
  end
  if not size or not ttl then
    return refuse('the namespace keeps no history: give both size and ttl, or neither')
  end

  local known = options.id and key .. ':id:' .. options.id
  local before = known and redis.call('GET', known)
  if before then
    local offset, epoch = string.match(before, '^(%d+) (.*)$')
    return { tonumber(offset), epoch }
  end
  local epoch = redis.call('HGET', key .. ':meta', 'epoch') or begin(key)
  local offset = redis.call('HINCRBY', key .. ':meta', 'offset', 1)
  local entry = { key .. ':log', 'MAXLEN', size, text(offset) .. '-0', 'data', data }
  for _, name in ipairs({ 'info', 'tags' }) do
    if options[name] then
      entry[#entry + 1] = name
      entry[#entry + 1] = options[name]
    end
  end
  local added = redis.pcall('XADD', unpack(entry))
  if type(added) == 'table' and added.err then
    if not string.find(added.err, 'equal or smaller', 1, true) then
      return added
    end
    -- The log knows more than the position: one of them is not what this script made of it.
    epoch = begin(key, epoch)
    offset = redis.call('HINCRBY', key .. ':meta', 'offset', 1)
    entry[4] = text(offset) .. '-0'
    redis.call('XADD', unpack(entry))
  end
  redis.call('EXPIRE', key .. ':log', ttl)
  remember(key, ttl)
  if known then
    redis.call('SET', known, text(offset) .. ' ' .. epoch, 'EX', IDEMPOTENT)
  end
  local fields = { '"offset":' .. text(offset), '"epoch":"' .. epoch .. '"' }
  redis.call(VERB, key, seal(fields, options, data))
  return { offset, epoch }
end
