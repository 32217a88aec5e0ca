//go:build unix && !solaris && !aix

package logger

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// The first line that does not fit goes to the next file, unless it has begun.
func TestCutFull(t *testing.T) {
	long := strings.Repeat("x", chunk)
	for _, row := range []struct {
		name       string
		next       string
		room, size int64
		lineEnds   bool
		n          int
		rotate     bool
	}{
		{"exactly full", "ab\ncd\n", 6, 10, true, 6, true},
		{"the last line that fits", "ab\ncd\nef\n", 7, 10, true, 6, true},
		{"none fits", "abcdef\n", 3, 10, true, 0, true},
		{"none fits, one has begun", "abcdef\nx\n", 3, 10, false, 7, true},
		{"none fits, one has begun and goes on", "abcdef", 3, 10, false, 6, false},
		{"longer than a file", "abcdef\nx\n", 3, 0, true, 7, true},
		{"no room, line ends", "ab\n", 0, 10, true, 0, true},
		{"no room, one has begun", "ab\ncd\n", -2, 10, false, 3, true},
		{"far too long", long + "y", 0, 10, false, chunk, true},
		{"too long for several chunks", "ab\n", -chunk, chunk + 10, false, 0, true},
		{"nearly too long", long, 1, 10, false, chunk, false},
	} {
		n, rotate := cutFull([]byte(row.next), row.room, row.size, row.lineEnds)
		if n != row.n || rotate != row.rotate {
			t.Errorf("%s: %d, %v, want %d, %v", row.name, n, rotate, row.n, row.rotate)
		}
	}
	if n, rotate := cutSoon([]byte("ab\ncd\n"), false); n != 3 || !rotate {
		t.Errorf("soon: %d, %v", n, rotate)
	}
	if n, rotate := cutSoon([]byte("ab\ncd\n"), true); n != 0 || !rotate {
		t.Errorf("soon, between lines: %d, %v", n, rotate)
	}
	if n, rotate := cutSoon([]byte("ab"), false); n != 2 || rotate {
		t.Errorf("soon, no end: %d, %v", n, rotate)
	}
}

// Whatever comes in pieces is written to files once and in order. A file ends with
// a line, and has more than one line only if it is not too large.
func FuzzCut(f *testing.F) {
	f.Add([]byte("one\ntwo\nthree is longer\n\n\nfour"), uint8(8), uint8(3))
	f.Add([]byte(strings.Repeat("x", 70)+"\n"+strings.Repeat("y\n", 40)), uint8(10), uint8(50))
	f.Fuzz(func(t *testing.T, in []byte, limit, piece uint8) {
		if limit == 0 || piece == 0 {
			return
		}
		var files [][]byte
		var file, all []byte
		for rest := in; len(rest) > 0; {
			p := rest[:min(int(piece), len(rest))]
			rest = rest[len(p):]
			for turns := 0; len(p) > 0; turns++ {
				if turns > 2*int(piece) {
					t.Fatal("no progress")
				}
				n, rotate := len(p), false
				if room := int64(limit) - int64(len(file)); int64(len(p)) >= room {
					n, rotate = cutFull(p, room, int64(len(file)), len(file) == 0 || file[len(file)-1] == '\n')
				}
				file, p = append(file, p[:n]...), p[n:]
				if rotate {
					files, file = append(files, file), nil
				}
			}
		}
		for _, file := range files {
			if !bytes.HasSuffix(file, []byte{'\n'}) {
				t.Errorf("a file ends within a line: %q", file)
			}
			if len(file) > int(limit)+chunk || len(file) > int(limit) && bytes.Count(file[:limit], []byte{'\n'}) > 0 && !crosses(file, int(limit), int(piece)) {
				t.Errorf("%d bytes, more than %d: %q", len(file), limit, file)
			}
			all = append(all, file...)
		}
		if all = append(all, file...); !bytes.Equal(all, in) {
			t.Errorf("%q, want %q", all, in)
		}
	})
}

// crosses reports whether the last line of a file had begun before the piece that
// reaches the maximum size.
func crosses(file []byte, limit, piece int) bool {
	last := bytes.LastIndexByte(file[:len(file)-1], '\n') + 1
	return last < limit && len(file) > limit
}

func TestFormat(t *testing.T) {
	now := time.Unix(1134900830, 976180123)
	for _, row := range []struct {
		f     format
		parts []string
		want  string
	}{
		{format{}, []string{"a", "b\n"}, "ab\n"},
		{format{stamp: 1}, []string{"a\n"}, "@4000000043a536683a2f539b a\n"},
		{format{stamp: 2}, []string{"a\n"}, "2005-12-18_10:13:50.97618 a\n"},
		{format{stamp: 3}, []string{"a\n\n"}, "2005-12-18T10:13:50.97618 a\n2005-12-18T10:13:50.97618 \n"},
		{format{prefix: "p: "}, []string{"a", "b\nc", "\n", "d"}, "p: ab\np: c\np: d"},
		{format{stamp: 2, prefix: "p: "}, []string{"a\n"}, "2005-12-18_10:13:50.97618 p: a\n"},
		{format{length: 3}, []string{"abc\nabcd\na", "bcd", "efghi\n"}, "abc\nabc\nd\nabc\ndef\nghi\n"},
		{format{length: 3, prefix: "-"}, []string{"abc", "\n", "abc", "d\n"}, "-abc\n-abc\n-d\n"},
	} {
		var out []byte
		f := row.f
		for _, part := range row.parts {
			out = f.append(out, []byte(part), now)
		}
		if string(out) != row.want {
			t.Errorf("%+v: %q, want %q", row.f, out, row.want)
		}
	}
}

// Names sort as the files came, also if the clock is set back.
func TestNextName(t *testing.T) {
	now := time.Unix(1134900830, 999999999)
	first := nextName("", now)
	if first != "@4000000043a536683b9ac9ff" {
		t.Error(first)
	}
	second := nextName(first+".s", now.Add(-time.Hour))
	if second != "@4000000043a5366900000000" {
		t.Error(second)
	}
	if third := nextName(second+".u", now.Add(time.Hour)); third != nextName("", now.Add(time.Hour)) {
		t.Error(third)
	}
}
