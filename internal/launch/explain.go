package launch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
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

// NotStarted returns the error of a Command that its first step did not execute. It
// is that of a direct start if reason is empty.
func (p *Plan) NotStarted(errno syscall.Errno, reason string) error {
	if reason != "" {
		return &stepError{errno, reason}
	}
	path, err := LookPath(p.Root, p.Dir, p.file())
	if err != nil {
		return err
	}
	return ExplainCommand(p.Root, p.Dir, &os.PathError{Op: "fork/exec", Path: path, Err: errno})
}

// A stepError is an error of a Command's first step.
type stepError struct {
	errno  syscall.Errno
	reason string
}

func (e *stepError) Error() string { return e.reason }
func (e *stepError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// explainLookup adds to an error of LookPath how to fix it.
func explainLookup(root, dir string, err error) error {
	at, ok := errors.AsType[*exec.Error](err)
	if !ok {
		return err
	}
	switch {
	case errors.Is(err, syscall.EISDIR):
		return fmt.Errorf("%w: name the program in it", err)
	case errors.Is(err, fs.ErrPermission):
		if info, serr := os.Stat(inRoot(root, from(dir, at.Name))); serr == nil && info.Mode().IsRegular() && info.Mode()&0o111 == 0 {
			return fmt.Errorf("%w: its mode %#o has no x: chmod +x it", err, info.Mode().Perm())
		}
		return fmt.Errorf("%w: %s", err, deniedText)
	}
	return err
}

const deniedText = "its user may not execute it: look at its mode, those of the directories above it, and whether its file system is mounted noexec"

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
	case errors.Is(err, syscall.EACCES):
		return deniedText
	case errors.Is(err, syscall.E2BIG):
		return "its arguments or variables are too long: pass a file"
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
