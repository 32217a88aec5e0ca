package capture

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestNextLine(t *testing.T) {
	const max = 16
	sixteen := strings.Repeat("x", max)
	for in, want := range map[string]string{ // | is a newline of the input, + a cut
		"":                                "",
		"a":                               "(a)",
		"\n":                              "|",
		"a\nb\n\nc":                       "a|b||(c)",
		sixteen:                           "(" + sixteen + ")",
		sixteen + "\n":                    sixteen + "|",
		sixteen + "y":                     sixteen + "+(y)",
		sixteen + "y\n":                   sixteen + "+y|",
		sixteen + sixteen + "\n":          sixteen + "+" + sixteen + "|",
		sixteen[1:] + "é\n":               sixteen[1:] + "+é|",
		sixteen[2:] + "é\n":               sixteen[2:] + "é|",
		sixteen[1:] + "😀😀\n":              sixteen[1:] + "+😀😀|",
		sixteen[3:] + "😀\n":               sixteen[3:] + "+😀|",
		sixteen[1:] + "\xff\xff\n":        sixteen[1:] + "\xff+\xff|",
		strings.Repeat("\x80", 17) + "\n": strings.Repeat("\x80", 16) + "+\x80|",
		"\x00\r\n":                        "\x00\r|",
	} {
		var got strings.Builder
		rest := []byte(in)
		for {
			line, next, cut, ok := nextLine(rest, max)
			if !ok {
				break
			}
			got.Write(line)
			got.WriteString(map[bool]string{true: "+", false: "|"}[cut])
			rest = next
		}
		if len(rest) > 0 {
			got.WriteString("(" + string(rest) + ")")
		}
		if got.String() != want {
			t.Errorf("%q: %q, want %q", in, got.String(), want)
		}
	}
}

// Whatever a worker writes, and however the pipe divides it, the lines have all
// its bytes in order.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nbb\n\nccc"), uint8(0), uint64(3))
	f.Add([]byte(strings.Repeat("é", 40)+"\n"+strings.Repeat("x", 33)), uint8(1), uint64(0x5555))
	f.Add([]byte("\xff\x00\n😀"), uint8(2), uint64(9))
	f.Fuzz(func(t *testing.T, data []byte, extra uint8, cuts uint64) {
		maxLine := minMaxLine + int(extra)
		for _, format := range []Format{Plain, JSON} {
			c := &Capture{cfg: Config{Format: format, MaxLine: maxLine, Sink: newMemory()}}
			p := &pipe{c: c, w: &Worker{tail: new(tail)}, stream: Stdout}
			p.setHead(format, "n")
			var carry []byte
			rest := data
			for i := 0; len(rest) > 0; i++ {
				n := min(len(rest), 1+int(cuts>>(i%60)&15))
				carry = bytes.Clone(c.take(p, append(carry, rest[:n]...)))
				if rest = rest[n:]; len(carry) > maxLine {
					t.Fatalf("%d bytes are held back", len(carry))
				}
			}
			if len(carry) > 0 {
				c.line(p, carry)
			}
			c.flush()
			out := c.cfg.Sink.(*memory).String()
			if format == Plain {
				checkPlain(t, data, out, maxLine)
			} else {
				checkJSON(t, data, out, maxLine)
			}
		}
	})
}

// checkPlain compares with a slow and simple splitter: "+" is ambiguous in plain
// lines.
func checkPlain(t *testing.T, data []byte, out string, maxLine int) {
	var want strings.Builder
	for _, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		if len(data) == 0 {
			break
		}
		for first := true; first || line != ""; first = false {
			n := min(len(line), maxLine)
			if n < len(line) {
				for back := 1; back < utf8.UTFMax; back++ {
					if utf8.RuneStart(line[n-back]) {
						if !utf8.FullRuneInString(line[n-back : n]) {
							n -= back
						}
						break
					}
				}
			}
			if !first {
				want.WriteByte('+')
			}
			want.WriteString(line[:n] + "\n")
			line = line[n:]
		}
	}
	if out != want.String() {
		t.Errorf("%q:\n got %q\nwant %q", data, out, want.String())
	}
}

type object struct {
	Time         time.Time
	Name, Stream string
	Slot, PID    int
	Line         *string
	Raw          []byte
	Continued    bool
}

func (o *object) text() string {
	if o.Line != nil {
		return *o.Line
	}
	return string(o.Raw)
}

func decode(t *testing.T, line string) *object {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	o := new(object)
	if err := d.Decode(o); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return o
}

func checkJSON(t *testing.T, data []byte, out string, maxLine int) {
	var got strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(out, "\n"), "\n") {
		if out == "" {
			break
		}
		line = strings.Replace(line, `"time":"",`, "", 1) // the test sets none
		o := decode(t, line)
		if i > 0 && !o.Continued {
			got.WriteByte('\n')
		}
		text := o.text()
		got.WriteString(text)
		if len(text) > maxLine || utf8.ValidString(text) != (o.Line != nil) {
			t.Errorf("%s", line)
		}
		if utf8.Valid(data) && o.Line == nil {
			t.Errorf("a character was divided: %s", line)
		}
	}
	if want := strings.TrimSuffix(string(data), "\n"); got.String() != want {
		t.Errorf("got %q\nwant %q\n%s", got.String(), want, out)
	}
}

func TestFormats(t *testing.T) {
	in := "plain\n\x00\t\"\\\x1b\x7fé\u2028\r\n\xff\xfe\n\n" + strings.Repeat("a", 20) + "\nend"
	raw := base64.StdEncoding.EncodeToString([]byte("\xff\xfe"))
	for format, want := range map[Format]string{
		Plain: "plain\n\x00\t\"\\\x1b\x7fé\u2028\r\n\xff\xfe\n\n" + strings.Repeat("a", 16) + "\n+aaaa\nend\n",
		Prefix: "web[3/17] plain\nweb[3/17] \x00\t\"\\\x1b\x7fé\u2028\r\nweb[3/17] \xff\xfe\nweb[3/17] \n" +
			"web[3/17] " + strings.Repeat("a", 16) + "\nweb[3/17]+aaaa\nweb[3/17] end\n",
		JSON: `"line":"plain"}
"line":"\u0000\t\"\\\u001b\u007fé` + "\u2028" + `\r"}
"raw":"` + raw + `"}
"line":""}
"line":"aaaaaaaaaaaaaaaa"}
"line":"aaaa","continued":true}
"line":"end"}
`,
	} {
		sink := newMemory()
		c := newCapture(t, Config{Sink: sink, Format: format, Name: "web", MaxLine: 16})
		w := start(t, c, 3, 17)
		w.print(in)
		w.end()
		closeAll(t, c)
		got := sink.String()
		if format == JSON {
			var lines strings.Builder
			for line := range strings.Lines(got) {
				o := decode(t, line)
				if o.Name != "web" || o.Slot != 3 || o.PID != 17 || o.Stream != "stdout" || time.Since(o.Time).Abs() > time.Hour {
					t.Errorf("%s", line)
				}
				_, line, _ = strings.Cut(line, `"stream":"stdout",`)
				lines.WriteString(line)
			}
			got = lines.String()
		}
		if got != want {
			t.Errorf("format %d:\n got %q\nwant %q", format, got, want)
		}
	}
}

// A name may be anything, and the stream is in each object.
func TestJSONHead(t *testing.T) {
	sink := newMemory()
	c := newCapture(t, Config{Sink: sink, Format: JSON, Name: "a\"\xff\n"})
	w := start(t, c, 0, 1)
	w.err.WriteString("x\n")
	w.end()
	closeAll(t, c)
	if o := decode(t, sink.String()); o.Name != "a\"�\n" || o.Stream != "stderr" || o.text() != "x" {
		t.Error(sink.String())
	}
}
