-- What backends call: FCALL tg_publish 1 <prefix>:{<channel>} <json> [<option> <value> ...]. `RETENTION` and `ANY`, what
-- namespaces keep, stand above. In a cluster further keys of the channel may be named, `<key>:meta` at least: they are there
-- while the slot's keys are, so that nothing is published beside a history that is on its way to another server.

redis.register_function('tg_publish', function(keys, args)
  local channel = keys[1] and string.match(keys[1], '{([^{}]+)}$')
  for at = 2, #keys do
    if string.sub(keys[at], 1, #keys[1] + 1) ~= keys[1] .. ':' then
      channel = nil
    end
  end
  if not channel then
    return refuse('give one key, <prefix>:{<channel>}, or others of the same channel behind it')
  end
  local namespace = string.match(channel, '^([^:]*):') or 'default'
  return publish(keys[1], args, RETENTION[namespace] or ANY)
end)
