//go:build unix

package loadgen

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
)

// responses are valid and invalid responses, with the expected results.
var responses = []struct {
	text   string
	stage  Stage // at which it fails; "" if it does not
	status int
	close  bool
	body   string
	next   string // bytes left for the next response
}{
	{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "", 200, false, "ok", ""},
	{"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "", 200, false, "ok", ""},
	{"HTTP/1.1 200\r\nContent-Length:0\r\n\r\nHTTP", "", 200, false, "", "HTTP"},
	{"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nCONNECTION: Keep-Alive, Close\r\n\r\nok", "", 200, true, "ok", ""},
	{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "", 200, false, "ok", ""},
	{"HTTP/1.1 503 Sorry\r\nConnection: close\r\n\r\nto the end", "", 503, true, "to the end", ""},
	{"HTTP/1.1 204 No Content\r\n\r\nHTTP", "", 204, false, "", "HTTP"},
	{"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "", 304, false, "", ""},
	{"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "", 200, true, "ok", ""},
	{"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", "", 200, false, "ok", ""},
	{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "", 200, false, "ok", ""},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\nHTTP", "", 200, false, "ok0123456789", "HTTP"},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\nx\r\n0\r\n\r\n", "", 200, false, "x", ""},

	{"", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 200 OK", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", ReadHeader, 0, false, "", ""},
	{"HTTP/2.0 200 OK\r\n\r\n", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 20 OK\r\n\r\n", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 +20 OK\r\n\r\n", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 2000 OK\r\n\r\n", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 100 Continue\r\n\r\n", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\nok", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 5000) + "\r\n\r\n", ReadHeader, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", ReadBody, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", ReadBody, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", ReadBody, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", ReadBody, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", ReadBody, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: v", ReadBody, 0, false, "", ""},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n", ReadBody, 0, false, "", ""},
}

func TestResponses(t *testing.T) {
	for _, c := range responses {
		br := bufio.NewReader(strings.NewReader(c.text))
		got, stage, err := readResponse(br, make([]byte, 0, 4))
		if err != nil {
			if stage != c.stage {
				t.Errorf("%.60q: %s: %v, want failure at %q", c.text, stage, err, c.stage)
			}
			if (err == io.EOF) != (c.text == "") {
				t.Errorf("%.60q: %v; want io.EOF only if there is no byte", c.text, err)
			}
			continue
		}
		next, _ := io.ReadAll(br)
		if c.stage != "" || got.status != c.status || got.close != c.close || string(got.body) != c.body || string(next) != c.next {
			t.Errorf("%.60q: %d %v %q, then %q; want %+v", c.text, got.status, got.close, got.body, next, c)
		}
	}
}

// TestTransferEncodingInHTTP10 checks that Transfer-Encoding overrides
// Content-Length. In HTTP/1.0 the body then extends to the end of the stream,
// unlike in net/http.
func TestTransferEncodingInHTTP10(t *testing.T) {
	const text = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nto the end"
	got, _, err := readResponse(bufio.NewReader(strings.NewReader(text)), nil)
	if err != nil || string(got.body) != "to the end" || !got.close {
		t.Errorf("body %q, close %t, %v", got.body, got.close, err)
	}
}

// FuzzResponse compares with net/http: a response that it can read too must
// have the same status and body. It is stricter in ways that do not matter in
// tests.
func FuzzResponse(f *testing.F) {
	for _, c := range responses {
		f.Add(c.text)
	}
	f.Add("HTTP/1.0 210 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r")
	f.Fuzz(func(t *testing.T, text string) {
		got, _, err := readResponse(bufio.NewReader(strings.NewReader(text)), nil)
		if err != nil || got.status == http.StatusSwitchingProtocols {
			return
		}
		br := bufio.NewReader(strings.NewReader(text))
		want, err := http.ReadResponse(br, nil)
		for err == nil && want.StatusCode < 200 {
			want, err = http.ReadResponse(br, nil)
		}
		if err != nil {
			return
		}
		if want.ProtoMinor == 0 && strings.Contains(strings.ToLower(text), "transfer-encoding") {
			return // see TestTransferEncodingInHTTP10
		}
		defer want.Body.Close()
		body, err := io.ReadAll(want.Body)
		if err == nil && (want.StatusCode != got.status || string(body) != string(got.body) || want.Close && !got.close) {
			t.Errorf("%q: %d %v %q, net/http reads %d %v %q", text, got.status, got.close, got.body, want.StatusCode, want.Close, body)
		}
	})
}
