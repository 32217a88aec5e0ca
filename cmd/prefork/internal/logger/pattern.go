//go:build unix && !solaris && !aix

package logger

import "bytes"

// matchLength is how much of a line a pattern is compared with, as of svlogd and
// multilog. So a line of any length is decided at once.
const matchLength = 1000

// A pattern selects lines or deselects them.
type pattern struct {
	action byte // + or - for the directory, e or E for the standard error
	text   string
	plus   bool // a plus repeats the next byte, as of svlogd
}

// choose has the patterns act on a line in order. Each line is selected for the
// directory at first.
func choose(patterns []pattern, line []byte) (log, alert bool) {
	log = true
	for _, p := range patterns {
		if !p.matches(line) {
			continue
		}
		switch p.action {
		case '+', '-':
			log = p.action == '+'
		default:
			alert = p.action == 'e'
		}
	}
	return log, alert
}

// matches reports whether the pattern is the whole line. A star at the end stands
// for any bytes, and another star for those up to the byte that follows it.
func (p *pattern) matches(line []byte) bool {
	for i := 0; i < len(p.text); i++ {
		c, last := p.text[i], i == len(p.text)-1
		switch {
		case c == '*' && last:
			return true
		case c == '*':
			n := bytes.IndexByte(line, p.text[i+1])
			if n < 0 {
				return false
			}
			line = line[n:]
		case c == '+' && p.plus && !last:
			i++
			n := 0
			for n < len(line) && line[n] == p.text[i] {
				n++
			}
			if n == 0 {
				return false
			}
			line = line[n:]
		case len(line) == 0 || line[0] != c:
			return false
		default:
			line = line[1:]
		}
	}
	return len(line) == 0
}
