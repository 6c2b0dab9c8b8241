-- What backends call: FCALL tg_publish 1 <prefix>:{<channel>} <json> [<option> <value> ...]. `RETENTION` and `ANY`, what
-- namespaces keep, stand above.

redis.register_function('tg_publish', function(keys, args)
  local channel = #keys == 1 and string.match(keys[1], '{([^{}]+)}$')
  if not channel then
    return refuse('give one key, <prefix>:{<channel>}')
  end
  local namespace = string.match(channel, '^([^:]*):') or 'default'
  return publish(keys[1], args, RETENTION[namespace] or ANY)
end)
