-- Counts one request in every window, or in none where one of them has no room.
-- KEYS[i] is the client in window i; ARGV[2i-1] is that window's limit, ARGV[2i] its length in milliseconds.
-- Redis runs a script by itself: nobody counts in between. A key ends with its window, so only Redis' clock counts.
local used, left, room = {}, {}, true
for i, key in ipairs(KEYS) do
  used[i] = tonumber(redis.call('GET', key) or 0)
  left[i] = redis.call('PTTL', key)
  if left[i] <= 0 then
    used[i], left[i] = 0, tonumber(ARGV[2 * i])
  end
  if used[i] >= tonumber(ARGV[2 * i - 1]) then
    room = false
  end
end
local answer = { room and 1 or 0 }
for i, key in ipairs(KEYS) do
  if room then
    used[i] = used[i] + 1
    if used[i] == 1 then
      redis.call('SET', key, 1, 'PX', left[i])
    else
      redis.call('INCR', key)
    end
  end
  answer[2 * i], answer[2 * i + 1] = used[i], left[i]
end
return answer
