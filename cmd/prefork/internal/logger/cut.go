//go:build unix && !solaris && !aix

package logger

import "bytes"

// cut returns how many of the next bytes are written to current, and whether it is
// rotated after them.
func (d *dir) cut(next []byte) (n int, rotate bool) {
	if d.soon {
		return cutSoon(next, d.endsLine())
	}
	room, limited := d.room()
	if !limited || int64(len(next)) < room {
		return len(next), false
	}
	return cutFull(next, room, d.size, d.endsLine())
}

// cutSoon cuts after the first line.
func cutSoon(next []byte, lineEnds bool) (n int, rotate bool) {
	if lineEnds {
		return 0, true
	}
	if i := bytes.IndexByte(next, '\n'); i >= 0 {
		return i + 1, true
	}
	return len(next), false
}

// cutFull cuts bytes that do not fit into a file of a size, or fill it. A line that
// does not fit goes to the next file. If it has begun, or is longer than a file, it
// ends beyond the maximum size, by a chunk at most.
func cutFull(next []byte, room, size int64, lineEnds bool) (n int, rotate bool) {
	if room > 0 {
		if i := bytes.LastIndexByte(next[:room], '\n'); i >= 0 {
			return i + 1, true
		}
	}
	if lineEnds && size > 0 {
		return 0, true
	}
	most := room + chunk
	if most <= 0 {
		return 0, true
	}
	full := int64(len(next)) >= most
	if full {
		next = next[:most]
	}
	if i := bytes.IndexByte(next, '\n'); i >= 0 {
		return i + 1, true
	}
	return len(next), full
}
