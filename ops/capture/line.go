package capture

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"
)

// A Line is a line that a worker has written.
type Line struct {
	Time   time.Time // when it was read
	Name   string    // of the pool
	Slot   int
	PID    int
	Stream Stream

	// Text is the line without its newline. It may be invalid UTF-8.
	Text string

	// Continued is true if the line before it was longer than Config.MaxLine,
	// and this is the rest.
	Continued bool
}

// nextLine returns the first line of b without its newline, and what follows. A
// line with more than max bytes is cut there, not within a character. ok is false
// if b has no whole line.
func nextLine(b []byte, max int) (line, rest []byte, cut, ok bool) {
	// A line of max bytes is whole if a newline is next.
	if i := bytes.IndexByte(b[:min(len(b), max+1)], '\n'); i >= 0 {
		return b[:i], b[i+1:], false, true
	}
	if len(b) <= max {
		return nil, b, false, false
	}
	at := max
	for i := max - 1; i > max-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:max]) {
				at = i
			}
			break
		}
	}
	return b[:at], b[at:], true, true
}

// setHead forms the part that all lines of a pipe begin with.
func (p *pipe) setHead(format Format, name string) {
	switch format {
	case Prefix:
		p.head = append(p.head[:0], name...)
		p.head = append(p.head, '[')
		p.head = strconv.AppendInt(p.head, int64(p.w.slot), 10)
		p.head = append(p.head, '/')
		p.head = strconv.AppendInt(p.head, int64(p.w.pid), 10)
		p.head = append(p.head, ']')
	case JSON:
		p.head = append(p.head[:0], `,"name":`...)
		p.head = appendQuoted(p.head, bytes.ToValidUTF8([]byte(name), []byte("�")))
		p.head = append(p.head, `,"slot":`...)
		p.head = strconv.AppendInt(p.head, int64(p.w.slot), 10)
		p.head = append(p.head, `,"pid":`...)
		p.head = strconv.AppendInt(p.head, int64(p.w.pid), 10)
		p.head = append(p.head, `,"stream":"`...)
		p.head = append(p.head, p.stream.String()...)
		p.head = append(p.head, `",`...)
	}
}

// appendLine appends a line in the format of the Capture, with a newline.
func (c *Capture) appendLine(out []byte, p *pipe, text []byte) []byte {
	switch c.cfg.Format {
	case Plain:
		if p.continued {
			out = append(out, '+')
		}
		out = append(out, text...)
	case Prefix:
		out = append(out, p.head...)
		if p.continued {
			out = append(out, '+')
		} else {
			out = append(out, ' ')
		}
		out = append(out, text...)
	case JSON:
		out = append(out, `{"time":"`...)
		out = append(out, c.stamp...)
		out = append(out, '"')
		out = append(out, p.head...)
		if utf8.Valid(text) {
			out = append(out, `"line":`...)
			out = appendQuoted(out, text)
		} else {
			out = append(out, `"raw":"`...)
			out = base64.StdEncoding.AppendEncode(out, text)
			out = append(out, '"')
		}
		if p.continued {
			out = append(out, `,"continued":true`...)
		}
		out = append(out, '}')
	}
	return append(out, '\n')
}

// appendQuoted appends text, which is valid UTF-8, as a string of JSON.
func appendQuoted(out, text []byte) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	from := 0
	for i, b := range text {
		if b >= ' ' && b != '"' && b != '\\' && b != 0x7f {
			continue
		}
		out = append(out, text[from:i]...)
		from = i + 1
		switch b {
		case '"', '\\':
			out = append(out, '\\', b)
		case '\t':
			out = append(out, `\t`...)
		case '\r':
			out = append(out, `\r`...)
		default:
			out = append(out, `\u00`...)
			out = append(out, hex[b>>4], hex[b&15])
		}
	}
	out = append(out, text[from:]...)
	return append(out, '"')
}
