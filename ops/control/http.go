package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-go/prefork/ops/client"
)

// A server for HTTP/1.1 in so far as a control socket needs it: one request a
// connection, no chunked request, no trailer. net/http would cost each worker of
// the program 0.3 ms at its start.

const (
	maxHead    = 8 << 10
	maxBody    = 64 << 10
	ioTimeout  = 5 * time.Second // for a whole request, and for each write of an answer
	drainLimit = 256 << 10       // of a request that was refused
	drainTime  = 500 * time.Millisecond
)

const (
	typeJSON   = "application/json"
	typeText   = "text/plain; charset=utf-8"
	typeNDJSON = "application/x-ndjson"
	typeSSE    = "text/event-stream"
)

// A request is the head of a request. Its body was read and ignored.
type request struct {
	method, path string
	query        url.Values
	header       textproto.MIMEHeader
}

// accepts reports whether the client asks for a content type by name.
func (r *request) accepts(contentType string) bool {
	for _, accept := range r.header["Accept"] {
		for part := range strings.SplitSeq(accept, ",") {
			name, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(name), contentType) {
				return true
			}
		}
	}
	return false
}

// problem is an error with the status code that the client gets.
type problem struct {
	code      int
	text      string
	allow     string // for 405
	successor int
}

func (p *problem) Error() string { return p.text }

func problemf(code int, format string, args ...any) *problem {
	return &problem{code: code, text: fmt.Sprintf(format, args...)}
}

// readRequest reads a request of at most maxHead and maxBody bytes. A client that
// waits for permission to send the body (Expect) gets it by proceed. The error is a
// *problem if the client can be answered.
func readRequest(conn io.Reader, proceed func() error) (*request, error) {
	limited := &io.LimitedReader{R: conn, N: maxHead}
	br := bufio.NewReader(limited)
	tp := textproto.NewReader(br)
	r, length, err := readHead(tp)
	switch {
	case err != nil && limited.N == 0:
		return nil, problemf(431, "the head of the request is longer than %d bytes", maxHead)
	case err != nil:
		return nil, err
	case length > maxBody:
		return nil, problemf(413, "the body has %d bytes, and may have %d: parameters belong into the query", length, maxBody)
	}
	if length > 0 && strings.EqualFold(r.header.Get("Expect"), "100-continue") {
		if err := proceed(); err != nil {
			return nil, err
		}
	}
	limited.N = length // of which br may have some already
	if _, err := io.CopyN(io.Discard, br, length); err != nil {
		return nil, err
	}
	return r, nil
}

func readHead(tp *textproto.Reader) (r *request, length int64, err error) {
	line, err := tp.ReadLine()
	if err != nil {
		return nil, 0, err
	}
	method, rest, _ := strings.Cut(line, " ")
	target, proto, ok := strings.Cut(rest, " ")
	if !ok || !isToken(method) || proto != "HTTP/1.1" && proto != "HTTP/1.0" {
		return nil, 0, problemf(400, "malformed request line %.60q", line)
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, 0, problemf(400, "malformed address %.60q", target)
	}
	r = &request{method: method, path: u.Path}
	if r.query, err = url.ParseQuery(u.RawQuery); err != nil {
		return nil, 0, problemf(400, "malformed query %.60q", u.RawQuery)
	}
	if r.header, err = tp.ReadMIMEHeader(); err != nil {
		var bad textproto.ProtocolError
		if errors.As(err, &bad) {
			err = problemf(400, "%.100v", bad)
		}
		return nil, 0, err
	}
	if len(r.header["Transfer-Encoding"]) > 0 {
		return nil, 0, problemf(400, "Transfer-Encoding is not supported: send a Content-Length")
	}
	for i, text := range r.header["Content-Length"] {
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil || i > 0 && int64(n) != length {
			return nil, 0, problemf(400, "Content-Length %.40q is not a number of bytes", text)
		}
		length = int64(n)
	}
	return r, length, nil
}

// isToken reports whether s can be the name of a method.
func isToken(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

var reasons = map[int]string{
	200: "OK", 202: "Accepted", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
	409: "Conflict", 413: "Content Too Large", 431: "Request Header Fields Too Large", 503: "Service Unavailable", 504: "Gateway Timeout",
}

// head returns the head of an answer. A negative length is that of a stream, which
// ends with the connection.
func head(code int, contentType string, length int, more ...string) []byte {
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n", code, reasons[code], contentType)
	if length >= 0 {
		b = fmt.Appendf(b, "Content-Length: %d\r\n", length)
	}
	for _, line := range more {
		b = append(b, line+"\r\n"...)
	}
	return append(b, "Cache-Control: no-store\r\nConnection: close\r\n\r\n"...)
}

// answer writes an answer as a whole.
func answer(w io.Writer, code int, contentType string, body []byte, more ...string) error {
	_, err := w.Write(append(head(code, contentType, len(body), more...), body...))
	return err
}

// answerJSON writes an answer with v as JSON and a newline.
func answerJSON(w io.Writer, code int, v any) error { return answer(w, code, typeJSON, encode(v)) }

// answerProblem writes an answer with the error.
func answerProblem(w io.Writer, p *problem) error {
	var more []string
	if p.allow != "" {
		more = append(more, "Allow: "+p.allow)
	}
	return answer(w, p.code, typeJSON, encode(client.Problem{Error: p.text, Successor: p.successor}), more...)
}

// encode returns v as a line of JSON. All types of the protocol can be encoded.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		data, _ = json.Marshal(client.Problem{Error: err.Error()})
	}
	return append(data, '\n')
}
