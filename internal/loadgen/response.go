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

// response is the part of a response that the clients use.
type response struct {
	status int
	close  bool   // the connection cannot be reused
	body   []byte // in the connection's buffer; valid until its next request
}

// maxBody is larger than any body in a test; a larger length is a mistake.
const maxBody = 64 << 20

var (
	errStatusLine = errors.New("malformed status line")
	errHeader     = errors.New("malformed header")
	errChunk      = errors.New("malformed chunk")
)

// header is the parsed header of a response.
type header struct {
	status         int
	http10         bool
	close, keep    bool
	chunked        bool
	length         int // of the body; -1 if unknown
	transferCoding bool
}

// readResponse reads a whole response, with buf as the buffer for the body.
// http.ReadResponse would cost more than the server under load.
func readResponse(br *bufio.Reader, buf []byte) (response, Stage, error) {
	h, err := readHeader(br)
	for err == nil && h.status < 200 && h.status != 101 {
		h, err = readHeader(br) // interim responses, such as 100 Continue
		err = unexpected(err)
	}
	if err != nil {
		return response{}, ReadHeader, err
	}
	r := response{status: h.status, close: h.close || h.http10 && !h.keep}
	switch {
	case h.status == 101:
		r.close = true // another protocol follows
	case h.status == 204 || h.status == 304:
	case h.chunked:
		r.body, err = readChunks(br, buf)
	case h.length >= 0:
		r.body, err = readN(br, buf[:0], h.length)
	default:
		r.close = true
		r.body, err = readToEOF(br, buf[:0])
	}
	return r, ReadBody, err
}

// readLine returns a line without its end, valid until the next read.
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

// readHeader reads the status line and the header. It returns io.EOF if there
// is no byte at all.
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
		h.length = -1 // RFC 9112, 6.3: Transfer-Encoding overrides Content-Length
	}
	return h, nil
}

// unexpected converts io.EOF within a response to io.ErrUnexpectedEOF.
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
	h.http10 = version == "HTTP/1.0"
	status, ok := number(line[9:12], 10)
	if !h.http10 && version != "HTTP/1.1" || !ok || status < 100 {
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
	case equalFold(name, "content-length"):
		n, ok := number(value, 10)
		if !ok || n > maxBody || h.length >= 0 && h.length != n {
			return fmt.Errorf("%w line %q", errHeader, line)
		}
		h.length = n
	case equalFold(name, "transfer-encoding"):
		if h.transferCoding || !equalFold(value, "chunked") {
			return fmt.Errorf("%w line %q", errHeader, line)
		}
		h.transferCoding = true
		h.chunked = !h.http10
	case equalFold(name, "connection"):
		for token := range bytes.SplitSeq(value, []byte(",")) {
			token = bytes.Trim(token, " \t")
			h.close = h.close || equalFold(token, "close")
			h.keep = h.keep || equalFold(token, "keep-alive")
		}
	}
	return nil
}

func equalFold(word []byte, lower string) bool {
	return len(word) == len(lower) && bytes.EqualFold(word, []byte(lower))
}

// number parses a number without a sign, which strconv alone would accept.
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

// readToEOF appends all bytes up to the end of the stream.
func readToEOF(br *bufio.Reader, buf []byte) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(br, maxBody))
	return append(buf, body...), err
}

// readChunks reads a chunked body and its trailer.
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
			return buf, fmt.Errorf("%w: %q after %d bytes", errChunk, line, n)
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
