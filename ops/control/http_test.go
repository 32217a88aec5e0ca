package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/prefork-go/prefork/ops/client"
)

func get(path string, lines ...string) string {
	return "GET " + path + " HTTP/1.1\r\n" + strings.Join(append(lines, "\r\n"), "\r\n")
}

func parse(text string) (*request, error) {
	return readRequest(strings.NewReader(text), func() error { return nil })
}

func TestReadRequest(t *testing.T) {
	for _, test := range []struct {
		text string
		want string // method, path and query, or the status code
	}{
		{"GET / HTTP/1.1\r\n\r\n", "GET / "},
		{"GET / HTTP/1.0\n\n", "GET / "},
		{"GET http://x/v1/status?usage=1 HTTP/1.1\r\n\r\n", "GET /v1/status usage=1"},
		{"POST /v1/reload?how=rolling HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "POST /v1/reload how=rolling"},
		{"POST /x HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "POST /x "},
		{"GET /%2e%2e/x HTTP/1.1\r\n\r\n", "GET /../x "},
		{"\r\n\r\n", "400"},
		{"GET /\r\n\r\n", "400"},
		{"GET / HTTP/2.0\r\n\r\n", "400"},
		{"GET  / HTTP/1.1\r\n\r\n", "400"},
		{"G{T / HTTP/1.1\r\n\r\n", "400"},
		{"GET x HTTP/1.1\r\n\r\n", "400"},
		{"GET /%zz HTTP/1.1\r\n\r\n", "400"},
		{"GET /?a=%zz HTTP/1.1\r\n\r\n", "400"},
		{"GET /?a;b HTTP/1.1\r\n\r\n", "400"},
		{"GET / HTTP/1.1\r\nno colon\r\n\r\n", "400"},
		{"GET / HTTP/1.1\r\n: x\r\n\r\n", "400"},
		{"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"},
		{"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400"},
		{"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx", "400"},
		{"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\nx", "400"},
		{"GET / HTTP/1.1\r\nContent-Length:\r\n\r\n", "400"},
		{"GET / HTTP/1.1\r\nContent-Length: 9223372036854775808\r\n\r\n", "400"},
		{"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "400"},
		{"GET / HTTP/1.1\r\nContent-Length: 65536\r\n\r\n" + strings.Repeat("x", 65536), "GET / "},
		{"GET / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", "413"},
		{get("/", "X: "+strings.Repeat("x", maxHead-30)), "GET / "},
		{get("/", "X: "+strings.Repeat("x", maxHead)), "431"},
		{"GET /" + strings.Repeat("x", maxHead), "431"},
		{get("/", strings.Repeat("X: y\r\n", maxHead/4)), "431"},
		{"", "EOF"},
		{"GET / HTTP/1.1\r\n", "EOF"},
		{"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", "EOF"},
	} {
		r, err := parse(test.text)
		got := ""
		var p *problem
		switch {
		case errors.As(err, &p):
			got = strconv.Itoa(p.code)
		case err != nil:
			got = err.Error()
		default:
			got = r.method + " " + r.path + " " + r.query.Encode()
		}
		if got != test.want {
			t.Errorf("%.60q: %s, want %s (%v)", test.text, got, test.want, err)
		}
	}
}

// A request may come in any pieces.
func TestReadRequestInPieces(t *testing.T) {
	text := "POST /v1/reload?how=plain HTTP/1.1\r\nAccept: a, b;q=1\r\nAccept: c\r\nContent-Length: 3\r\n\r\nabc"
	r, err := readRequest(iotestOneByte{strings.NewReader(text)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, accepted := range []string{"a", "b", "B", "c"} {
		if !r.accepts(accepted) {
			t.Errorf("%s is not accepted", accepted)
		}
	}
	if r.accepts("d") || r.accepts("") {
		t.Error("accepts what was not asked for")
	}
}

type iotestOneByte struct{ io.Reader }

func (r iotestOneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 1)]) }

// curl sends a long body only after it was asked for it.
func TestExpectContinue(t *testing.T) {
	proceeded := false
	proceed := func() error { proceeded = true; return nil }
	text := "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
	if _, err := readRequest(strings.NewReader(text), proceed); err != nil || !proceeded {
		t.Errorf("error %v, proceeded %t", err, proceeded)
	}
	proceeded = false
	text = strings.Replace(text, ": 3", ": 70000", 1)
	if _, err := readRequest(strings.NewReader(text), proceed); err == nil || proceeded {
		t.Errorf("too long a body: error %v, proceeded %t", err, proceeded)
	}
}

func TestAnswers(t *testing.T) {
	var b bytes.Buffer
	answerProblem(&b, &problem{code: 405, text: "a \"b\"\n", allow: "GET"})
	want := "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: application/json\r\nContent-Length: 22\r\nAllow: GET\r\n" +
		"Cache-Control: no-store\r\nConnection: close\r\n\r\n{\"error\":\"a \\\"b\\\"\\n\"}\n"
	if b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
	for code := range reasons {
		if reasons[code] == "" || !strings.HasPrefix(string(head(code, typeJSON, 0)), fmt.Sprintf("HTTP/1.1 %d ", code)) {
			t.Errorf("status %d", code)
		}
	}
}

// FuzzRequest reads arbitrary requests. Each is answered or the client is gone. A
// request that is accepted stays within the limits. An answer is JSON in one line.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\n\r\n", "POST /v1/scale?workers=%2B1 HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde",
		"GET /v1/events?since=7 HTTP/1.0\nAccept: text/event-stream\nLast-Event-ID: 9\n\n",
		"PUT /v1/loglevel?level=debug HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", get("/x", "A: b", " c", "D:"),
		get("/", "\x12"+strings.Repeat("x", 1000)), "GET /" + strings.Repeat("%F4%8F%BF%BF", 100) + " HTTP/1.1\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rest := bytes.NewReader(data)
		r, err := readRequest(rest, func() error { return nil })
		var out bytes.Buffer
		var p *problem
		if err != nil {
			if !errors.As(err, &p) {
				return
			}
			answerProblem(&out, p)
		} else {
			if read := len(data) - rest.Len(); read > maxHead+maxBody+8192 {
				t.Errorf("read %d bytes", read)
			}
			answerProblem(&out, problemf(404, "there is no %.60q here", r.path))
		}
		checkAnswer(t, out.Bytes())
	})
}

// checkAnswer checks that an answer is a problem, with the right length.
func checkAnswer(t *testing.T, answer []byte) {
	t.Helper()
	headText, body, ok := strings.Cut(string(answer), "\r\n\r\n")
	if !ok {
		t.Fatalf("answer without a head: %q", answer)
	}
	length := -1
	lines := bufio.NewScanner(strings.NewReader(headText))
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "Content-Length: "); ok {
			length, _ = strconv.Atoi(text)
		}
	}
	var p client.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil || p.Error == "" || length != len(body) || strings.Count(body, "\n") != 1 {
		t.Errorf("answer %q: %v", answer, err)
	}
	if len(body) > 1024 {
		t.Errorf("an error of %d bytes", len(body))
	}
}
