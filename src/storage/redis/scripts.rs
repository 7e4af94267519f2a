//! What has to happen in one step on the server. Each script touches the keys that it is given, of one entry, and
//! nothing else, so a cluster takes it. They go as `EVAL`: the server keeps them compiled by their hash, and a server
//! that was restarted needs no second way.
//!
//! A value is 20 digits of time, then the record: one byte of version (1), four of checksum, sixteen of stamp.

/// Writes if the stamp there is ARGV\[1\] (empty: nothing there), or ARGV\[2\], the new record's own. ARGV\[3\] is the
/// expiry, ARGV\[4\] the value. What is no record counts as nothing. 1: written.
pub(super) const WRITE_IF: &str = "\
local there = redis.pcall('GETRANGE', KEYS[1], 20, 40)
if type(there) ~= 'string' or #there < 21 or string.byte(there, 1) ~= 1 then there = '' else there = string.sub(there, 6) end
if there == ARGV[2] then return 1 end
if there ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then redis.call('UNLINK', KEYS[1])
elseif ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[4])
else redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[3]) end
return 1";

/// Moves the time of each key to ARGV\[2\] (20 digits) where it is before (ARGV\[1\] = `<`) or after (`>`); ARGV\[3\] is the
/// expiry. How many records were there.
pub(super) const RETAIN: &str = "\
local count = 0
for _, key in ipairs(KEYS) do
local there = redis.pcall('GETRANGE', key, 0, 20)
if type(there) == 'string' and #there == 21 and string.byte(there, 21) == 1 then
count = count + 1
local time = string.sub(there, 1, 20)
if (ARGV[1] == '<' and time < ARGV[2]) or (ARGV[1] == '>' and time > ARGV[2]) then
if ARGV[3] == '0' then redis.call('UNLINK', key)
else
redis.call('SETRANGE', key, 0, ARGV[2])
if ARGV[3] == '' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, ARGV[3]) end
end end end end
return count";

/// Removes the key if its time is at or before ARGV\[1\] (20 digits). 1: removed.
pub(super) const EXPIRE: &str = "\
local time = redis.pcall('GETRANGE', KEYS[1], 0, 19)
if type(time) == 'string' and #time == 20 and time <= ARGV[1] then return redis.call('UNLINK', KEYS[1]) end
return 0";
