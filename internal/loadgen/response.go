//go:build unix

package loadgen

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// response is what the clients look at of a response.
type response struct {
	status int
	close  bool   // no request may follow on the connection
	body   []byte // in the connection's buffer: valid until its next request
}

// maxBody is more than any test sends: a length beyond it is a mistake.
const maxBody = 64 << 20

var (
	errStatusLine = errors.New("malformed status line")
	errHeader     = errors.New("malformed header")
	errChunk      = errors.New("malformed chunk")
)

// header is what the header of a response says of how it goes on.
type header struct {
	status         int
	old            bool // HTTP/1.0
	close, keep    bool
	chunked        bool
	length         int // of the body; -1 if it does not say
	transferCoding bool
}

// readResponse reads a response to its last byte, into buf. http.ReadResponse, which it takes the place of, costs more than
// the server that is under load does.
func readResponse(br *bufio.Reader, buf []byte) (response, Stage, error) {
	h, err := readHeader(br)
	for err == nil && h.status < 200 && h.status != 101 {
		h, err = readHeader(br) // 100 Continue and such come before the response
		err = unexpected(err)
	}
	if err != nil {
		return response{}, ReadHeader, err
	}
	r := response{status: h.status, close: h.close || h.old && !h.keep}
	switch {
	case h.status == 101:
		r.close = true // not HTTP from here on
	case h.status == 204 || h.status == 304:
	case h.chunked:
		r.body, err = readChunks(br, buf)
	case h.length >= 0:
		r.body, err = readN(br, buf[:0], h.length)
	default:
		r.close = true
		r.body, err = readRest(br, buf[:0])
	}
	return r, ReadBody, err
}

// readLine returns a line without its end. It is valid until the next read.
func readLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		if err == io.EOF && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

// readHeader reads status line and header. io.EOF means that there was not a byte.
func readHeader(br *bufio.Reader) (header, error) {
	h := header{length: -1}
	line, err := readLine(br)
	if err != nil {
		return h, err
	}
	if err := h.statusLine(line); err != nil {
		return h, err
	}
	for {
		line, err = readLine(br)
		if err != nil {
			return h, unexpected(err)
		}
		if len(line) == 0 {
			break
		}
		if err := h.field(line); err != nil {
			return h, err
		}
	}
	if h.transferCoding {
		h.length = -1 // RFC 9112, 6.3: it overrides a length
	}
	return h, nil
}

// unexpected is for an end in the midst of a response.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (h *header) statusLine(line []byte) error {
	if len(line) < len("HTTP/1.1 200") || len(line) > 12 && line[12] != ' ' || line[8] != ' ' {
		return fmt.Errorf("%w %q", errStatusLine, line)
	}
	version := string(line[:8])
	h.old = version == "HTTP/1.0"
	status, ok := number(line[9:12], 10)
	if !h.old && version != "HTTP/1.1" || !ok || status < 100 {
		return fmt.Errorf("%w %q", errStatusLine, line)
	}
	h.status = status
	return nil
}

func (h *header) field(line []byte) error {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t\r") {
		return fmt.Errorf("%w line %q", errHeader, line)
	}
	value = bytes.Trim(value, " \t")
	switch {
	case is(name, "content-length"):
		n, ok := number(value, 10)
		if !ok || n > maxBody || h.length >= 0 && h.length != n {
			return fmt.Errorf("%w line %q", errHeader, line)
		}
		h.length = n
	case is(name, "transfer-encoding"):
		if h.transferCoding || !is(value, "chunked") {
			return fmt.Errorf("%w line %q", errHeader, line)
		}
		h.transferCoding = true
		h.chunked = !h.old
	case is(name, "connection"):
		for token := range bytes.SplitSeq(value, []byte(",")) {
			token = bytes.Trim(token, " \t")
			h.close = h.close || is(token, "close")
			h.keep = h.keep || is(token, "keep-alive")
		}
	}
	return nil
}

// is compares a word without regard to case.
func is(word []byte, lower string) bool {
	return len(word) == len(lower) && bytes.EqualFold(word, []byte(lower))
}

// number is a number without sign; strconv alone would take one.
func number(b []byte, base int) (int, bool) {
	if len(b) == 0 || b[0] == '+' || b[0] == '-' {
		return 0, false
	}
	n, err := strconv.ParseInt(string(b), base, 0)
	return int(n), err == nil
}

// readN appends n bytes to buf.
func readN(br *bufio.Reader, buf []byte, n int) ([]byte, error) {
	have := len(buf)
	for cap(buf) < have+n {
		buf = append(buf[:cap(buf)], 0)
	}
	buf = buf[:have+n]
	_, err := io.ReadFull(br, buf[have:])
	return buf, unexpected(err)
}

// readRest appends what comes up to the end.
func readRest(br *bufio.Reader, buf []byte) ([]byte, error) {
	rest, err := io.ReadAll(io.LimitReader(br, maxBody))
	return append(buf, rest...), err
}

// readChunks reads a chunked body with its trailer.
func readChunks(br *bufio.Reader, buf []byte) ([]byte, error) {
	buf = buf[:0]
	for {
		line, err := readLine(br)
		if err != nil {
			return buf, unexpected(err)
		}
		size, _, _ := bytes.Cut(line, []byte(";")) // an extension
		n, ok := number(bytes.TrimRight(size, " \t"), 16)
		if !ok || n > maxBody-len(buf) {
			return buf, fmt.Errorf("%w size %q", errChunk, line)
		}
		if n == 0 {
			return buf, readTrailer(br)
		}
		if buf, err = readN(br, buf, n); err != nil {
			return buf, err
		}
		if line, err = readLine(br); err != nil {
			return buf, unexpected(err)
		} else if len(line) > 0 {
			return buf, fmt.Errorf("%w: %q behind %d bytes", errChunk, line, n)
		}
	}
}

func readTrailer(br *bufio.Reader) error {
	for {
		line, err := readLine(br)
		if err != nil {
			return unexpected(err)
		}
		if len(line) == 0 {
			return nil
		}
		if name, _, ok := bytes.Cut(line, []byte(":")); !ok || len(name) == 0 {
			return fmt.Errorf("%w in a trailer: %q", errHeader, line)
		}
	}
}
