package marker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Parse decodes the Marker of a worker. It accepts only values that String
// returns: for a value that was cut, altered or written by another version, it
// returns an error that tells these cases apart.
func Parse(value string) (Marker, error) { return parseVar(Env, value) }

// ParseSuccessor is Parse for a successor.
func ParseSuccessor(value string) (Marker, error) { return parseVar(SuccessorEnv, value) }

func parseVar(name, value string) (Marker, error) {
	m, err := parse(value)
	if err == nil {
		return m, nil
	}
	switch {
	case !errors.Is(err, errVersion):
	case name == SuccessorEnv:
		err = fmt.Errorf("%w: its manager cannot be upgraded; stop it and start the program again", err)
	default:
		err = fmt.Errorf("%w: manager and worker must be the same program", err)
	}
	return Marker{}, fmt.Errorf("%s=%s: %w", name, strconv.Quote(short(value)), err)
}

var errVersion = errors.New("written by another version of the library")

func parse(value string) (m Marker, err error) {
	body, err := verify(value)
	if err != nil {
		return m, err
	}
	// The checksum is right, so a manager wrote the value. An error below is a
	// defect of the manager, or a forgery.
	rest := strings.Split(body, ";")
	fields := m.fields()
	if len(rest) == 2 {
		fields = []field{fields[0], {"long", &m.Long, firstFD, maxFD}}
	}
	for _, f := range fields {
		if len(rest) == 0 {
			return m, fmt.Errorf("%s is missing", f.key)
		}
		text, ok := strings.CutPrefix(rest[0], f.key+"=")
		if !ok {
			return m, fmt.Errorf("%s is missing", f.key)
		}
		if err := f.set(text); err != nil {
			return m, err
		}
		rest = rest[1:]
	}
	for _, item := range rest {
		if err := m.parseItem(item); err != nil {
			return m, err
		}
	}
	if m.Long != 0 {
		return m, nil
	}
	return m, m.checkFDs()
}

// verify checks version and checksum, and returns the text after them.
func verify(value string) (body string, err error) {
	v, rest, ok := strings.Cut(value, ";")
	if !ok || len(v) < 2 || v[0] != 'v' {
		return "", errors.New("not a value that a manager writes")
	}
	if v[1:] != version {
		return "", fmt.Errorf("%w (%s, this one is v%s)", errVersion, short(v), version)
	}
	sum, body, ok := strings.Cut(rest, ";")
	if !ok || sum != checksum(body) {
		return "", errors.New("altered or cut after the manager wrote it")
	}
	return body, nil
}

// parseItem adds an element of a list to m. Files follow sockets.
func (m *Marker) parseItem(text string) error {
	key, values, _ := strings.Cut(text, "=")
	if key != "file" && len(m.Files) == 0 {
		var s Socket
		if err := setAll(s.fields(), key == "sock", values); err != nil {
			return fmt.Errorf("%q is not a socket: %w", short(text), err)
		}
		m.Sockets = append(m.Sockets, s)
		return nil
	}
	var f File
	if err := setAll(f.fields(), key == "file", values); err != nil {
		return fmt.Errorf("%q is not a file: %w", short(text), err)
	}
	m.Files = append(m.Files, f)
	return nil
}

func setAll(fields []field, known bool, values string) error {
	texts := strings.Split(values, ",")
	if !known || len(texts) != len(fields) {
		return errors.New("unknown key or number of parts")
	}
	for i, f := range fields {
		if err := f.set(texts[i]); err != nil {
			return err
		}
	}
	return nil
}

// set parses the text of one field.
func (f field) set(text string) error {
	if s, ok := f.value.(*string); ok {
		if err := unescape(s, text); err != nil {
			return fmt.Errorf("%s: %w", f.key, err)
		}
		return nil
	}
	n, err := parseInt(text, f.min, f.max)
	if err != nil {
		return fmt.Errorf("%s: %w", f.key, err)
	}
	switch v := f.value.(type) {
	case *bool:
		*v = n == 1
	case *int:
		*v = int(n)
	case *time.Duration:
		*v = time.Duration(n)
	case *syscall.Signal:
		*v = syscall.Signal(n)
	}
	return nil
}

// parseInt accepts a number only in the form in which String writes it.
func parseInt(text string, lo, hi int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%q is not a number", short(text))
	}
	if n < lo || n > hi {
		return 0, fmt.Errorf("%d is out of range", n)
	}
	return n, nil
}

const hex = "0123456789abcdef"

// isPlain reports whether escape leaves c unchanged.
func isPlain(c byte) bool {
	return c > ' ' && c < 0x7f && c != ';' && c != ',' && c != '=' && c != '%'
}

func escape(s string) string {
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if c := s[i]; isPlain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

func unescape(dst *string, s string) error {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			var ok bool
			if c, ok = parseHex(s[i+1:]); !ok || isPlain(c) {
				return fmt.Errorf("%q is not escaped as a manager does", short(s))
			}
			i += 2
		} else if !isPlain(c) {
			return fmt.Errorf("%q is not escaped as a manager does", short(s))
		}
		b = append(b, c)
	}
	*dst = string(b)
	return nil
}

// parseHex parses the first two digits of s.
func parseHex(s string) (c byte, ok bool) {
	if len(s) < 2 {
		return 0, false
	}
	hi, lo := strings.IndexByte(hex, s[0]), strings.IndexByte(hex, s[1])
	return byte(hi<<4 | lo), hi >= 0 && lo >= 0
}

// checksum returns the FNV-1a hash in eight digits. It guards against accidents,
// not against malice: a process that can write this environment can start this
// program anyway. It avoids package fmt, whose first use costs time at the start
// of every worker.
func checksum(s string) string {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	var b [8]byte
	for i := range b {
		b[i] = hex[h>>(28-4*i)&15]
	}
	return string(b[:])
}

func short(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
