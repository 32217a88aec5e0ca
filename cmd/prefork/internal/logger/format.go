//go:build unix && !solaris && !aix

package logger

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// A format is how lines are selected and changed.
type format struct {
	stamp    int // the number of -t
	prefix   string
	length   int // of a line at most; 0 if any
	patterns []pattern

	line   lineState // of the line of the input that has begun
	head   []byte    // its bytes while it is undecided
	column int       // bytes of the line that has begun, stamp and prefix not counted
	began  bool
	alerts []byte // lines for the standard error
}

// A lineState is whether a line is written.
type lineState int

const (
	undecided lineState = iota
	selected
	dropped
)

// isPlain reports whether lines stay as they are.
func (f *format) isPlain() bool {
	return f.stamp == 0 && f.prefix == "" && f.length == 0 && len(f.patterns) == 0 && f.line == undecided && len(f.head) == 0
}

// append appends lines of in to out. The first may be the rest of one before, and
// the last may go on.
func (f *format) append(out, in []byte, now time.Time) []byte {
	if f.isPlain() {
		return append(out, in...)
	}
	begin := append(appendStamp(nil, f.stamp, now), f.prefix...)
	if len(f.head) > 0 {
		in, f.head = append(f.head, in...), nil
	}
	for len(in) > 0 {
		if f.line == undecided {
			line, whole := firstLine(in)
			if len(f.patterns) > 0 && !whole {
				f.head = bytes.Clone(in)
				return out
			}
			f.decide(begin, line)
		}
		if f.line == dropped {
			n := bytes.IndexByte(in, '\n')
			if n < 0 {
				return out
			}
			in, f.line = in[n+1:], undecided
			continue
		}
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
			in, f.began, f.line = in[1:], false, undecided
		}
	}
	return out
}

// firstLine returns as much of the first line as patterns are compared with, and
// whether that is there.
func firstLine(in []byte) (line []byte, whole bool) {
	line = in[:min(len(in), matchLength)]
	if n := bytes.IndexByte(line, '\n'); n >= 0 {
		return line[:n], true
	}
	return line, len(line) == matchLength
}

// decide has the patterns act on a line.
func (f *format) decide(begin, line []byte) {
	f.line = dropped
	log, alert := choose(f.patterns, line)
	if log {
		f.line = selected
	}
	if alert {
		f.alerts = append(append(f.alerts, begin...), line...)
		if len(line) == matchLength {
			f.alerts = append(f.alerts, "..."...)
		}
		f.alerts = append(f.alerts, '\n')
	}
}

// flush appends a line that does not end.
func (f *format) flush(out []byte, now time.Time) []byte {
	if len(f.head) == 0 {
		return out
	}
	head := f.head
	f.head = nil
	f.decide(append(appendStamp(nil, f.stamp, now), f.prefix...), head)
	return f.append(out, head, now)
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
