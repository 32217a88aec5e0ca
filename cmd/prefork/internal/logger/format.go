//go:build unix && !solaris && !aix

package logger

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// A format is how lines are changed.
type format struct {
	stamp  int // the number of -t
	prefix string
	length int // of a line at most; 0 if any

	column int // bytes of the line that has begun, stamp and prefix not counted
	began  bool
}

// isPlain reports whether lines stay as they are.
func (f *format) isPlain() bool { return f.stamp == 0 && f.prefix == "" && f.length == 0 }

// append appends lines of in to out. The first may be the rest of one before, and
// the last may go on.
func (f *format) append(out, in []byte, now time.Time) []byte {
	if f.isPlain() {
		return append(out, in...)
	}
	begin := append(appendStamp(nil, f.stamp, now), f.prefix...)
	for len(in) > 0 {
		if !f.began {
			out = append(out, begin...)
			f.began, f.column = true, 0
		}
		n := bytes.IndexByte(in, '\n')
		ends := n >= 0
		if !ends {
			n = len(in)
		}
		if f.length > 0 && f.column+n > f.length { // split
			n = f.length - f.column
			out = append(append(out, in[:n]...), '\n')
			in, f.began = in[n:], false
			continue
		}
		out = append(out, in[:n]...)
		f.column += n
		if in = in[n:]; ends {
			out = append(out, '\n')
			in, f.began = in[1:], false
		}
	}
	return out
}

// appendStamp appends the time as -t, -tt or -ttt of svlogd have it.
func appendStamp(out []byte, kind int, now time.Time) []byte {
	switch kind {
	case 0:
		return out
	case 1:
		return append(appendTAI64N(out, now), ' ')
	}
	now = now.UTC()
	separator := byte('_')
	if kind == 3 {
		separator = 'T'
	}
	out = append(now.AppendFormat(out, "2006-01-02"), separator)
	return now.AppendFormat(out, "15:04:05.00000 ")
}

// appendTAI64N appends a time as programs of daemontools do, which take the 10
// seconds of 1970 for the difference between TAI and UTC.
func appendTAI64N(out []byte, t time.Time) []byte {
	return fmt.Appendf(out, "@%016x%08x", uint64(1<<62+10+t.Unix()), t.Nanosecond())
}

// nextName returns the name of a file without its suffix. It sorts after the last
// one, also if the clock was set back.
func nextName(last string, now time.Time) string {
	name := string(appendTAI64N(nil, now))
	if len(last) < len(name) || name > last[:len(name)] {
		return name
	}
	seconds, err := strconv.ParseUint(last[1:17], 16, 64)
	nanoseconds, err2 := strconv.ParseUint(last[17:25], 16, 32)
	if err != nil || err2 != nil {
		return name
	}
	return string(appendTAI64N(nil, time.Unix(int64(seconds)-(1<<62+10), int64(nanoseconds)+1)))
}
