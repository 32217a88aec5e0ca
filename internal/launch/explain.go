package launch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// ExplainCommand adds to the error of a Command's start what its file lacks. The
// kernel reports a missing interpreter as a missing file. root is its root
// directory and dir its working directory; "" for those of this process.
func ExplainCommand(root, dir string, err error) error {
	var at *os.PathError
	if !errors.As(err, &at) {
		return err
	}
	if why := explain(inRoot(root, from(dir, at.Path)), at.Err); why != "" {
		return fmt.Errorf("%w: %s", err, why)
	}
	return err
}

// checkCommand returns the error with which the start of a Command would fail, as
// far as its file shows it. The path is that of LookPath.
func checkCommand(root, dir, path string) error {
	head := readHead(inRoot(root, from(dir, path)))
	if interpreter, ok := interpreterOf(head); ok {
		if _, err := os.Stat(inRoot(root, interpreter)); err != nil {
			return ExplainCommand(root, dir, &os.PathError{Op: "exec", Path: path, Err: syscall.ENOENT})
		}
		return nil
	}
	if len(head) > 0 && !bytes.HasPrefix(head, []byte(elfMagic)) && isText(head) {
		return ExplainCommand(root, dir, &os.PathError{Op: "exec", Path: path, Err: syscall.ENOEXEC})
	}
	return nil
}

const elfMagic = "\x7fELF"

func explain(path string, err error) string {
	head := readHead(path)
	interpreter, script := interpreterOf(head)
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		return "it is open for writing: write a new file and rename it"
	case errors.Is(err, syscall.ENOENT) && strings.HasSuffix(interpreter, "\r"):
		return fmt.Sprintf("its first line ends with CR, so its interpreter %q does not exist: convert the file to Unix line ends", interpreter)
	case errors.Is(err, syscall.ENOENT) && interpreter != "":
		return fmt.Sprintf("its interpreter %s does not exist", interpreter)
	case errors.Is(err, syscall.ENOENT) && len(head) > 0:
		return "a program that it needs to start does not exist: it may be built for another system"
	case errors.Is(err, syscall.EACCES) && interpreter != "":
		return fmt.Sprintf("it or its interpreter %s may not be executed", interpreter)
	case !errors.Is(err, syscall.ENOEXEC):
		return ""
	case len(head) == 0:
		return "the file is empty"
	case script:
		return "its first line names no interpreter"
	case bytes.HasPrefix(head, []byte(elfMagic)):
		return "it is built for another kind of machine, or damaged"
	}
	return "a script must begin with #! and its interpreter, such as #!/bin/sh"
}

// readHead returns the first bytes of a file; nil if it cannot be read.
func readHead(path string) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	head := make([]byte, 256) // as many as Linux reads
	n, _ := io.ReadFull(f, head)
	return head[:n]
}

// interpreterOf returns the interpreter that a script names, if any.
func interpreterOf(head []byte) (interpreter string, script bool) {
	if rest, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		if f := strings.FieldsFunc(string(line), func(r rune) bool { return r == ' ' || r == '\t' }); len(f) > 0 {
			return f[0], true
		}
		return "", true
	}
	return "", false
}

// isText reports whether a file that begins with head may be a script.
func isText(head []byte) bool { return bytes.IndexByte(head, 0) < 0 }
