package preforkhttp

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
)

// A closingWriter is the ResponseWriter of an HTTP/1 request that offers an
// upgrade in a drain. It adds "Connection: close" to the response unless that is
// the start of another protocol. Before the handler has decided, the header must
// not have it: a handler that switches protocols may copy it, and "close" ahead
// of "Upgrade" breaks the handshake.
//
// It has all methods of the ResponseWriter of net/http, so that programs find the
// interfaces that they look for.
type closingWriter struct {
	http.ResponseWriter
	decided bool // the response has begun, or the connection is hijacked
}

// responseWriter lists the methods of the ResponseWriter of net/http for HTTP/1.
type responseWriter interface {
	http.ResponseWriter
	http.Flusher
	http.Hijacker
	//lint:ignore SA1019 programs may still look for it
	http.CloseNotifier
	io.ReaderFrom
	io.StringWriter
}

var _ responseWriter = (*closingWriter)(nil)

func (w *closingWriter) begin(status int) {
	if w.decided || status < 200 && status != http.StatusSwitchingProtocols {
		return // the final response follows
	}
	w.decided = true
	if status != http.StatusSwitchingProtocols {
		addClose(w.Header())
	}
}

// addClose adds "close" ahead of other values: net/http looks only at the first.
func addClose(h http.Header) {
	others := slices.DeleteFunc(h.Values("Connection"), func(v string) bool {
		return strings.EqualFold(v, "close") || strings.EqualFold(v, "keep-alive")
	})
	h["Connection"] = append([]string{"close"}, others...)
}

// WriteHeader implements http.ResponseWriter.
func (w *closingWriter) WriteHeader(status int) {
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *closingWriter) Write(p []byte) (int, error) {
	w.begin(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// WriteString implements io.StringWriter.
func (w *closingWriter) WriteString(s string) (int, error) {
	w.begin(http.StatusOK)
	return io.WriteString(w.ResponseWriter, s)
}

// ReadFrom implements io.ReaderFrom, by which net/http sends files.
func (w *closingWriter) ReadFrom(r io.Reader) (int64, error) {
	w.begin(http.StatusOK)
	return io.Copy(w.ResponseWriter, r)
}

// Flush implements http.Flusher.
func (w *closingWriter) Flush() { w.FlushError() }

// FlushError is called by http.ResponseController.
func (w *closingWriter) FlushError() error {
	w.begin(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker.
func (w *closingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.decided = true
	}
	return nc, rw, err
}

// CloseNotify implements http.CloseNotifier.
func (w *closingWriter) CloseNotify() <-chan bool {
	return w.ResponseWriter.(responseWriter).CloseNotify()
}

// Unwrap is called by http.ResponseController.
func (w *closingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serveOptions answers "OPTIONS *" as net/http does, which would not call the
// handler and so would not close the connection in a drain.
func serveOptions(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "0")
	if r.ContentLength != 0 {
		// Like net/http: a small body is read, so that the connection can be kept.
		io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 4<<10))
	}
}
