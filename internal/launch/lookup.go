package launch

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// LookPath looks up a Command as exec.LookPath does. A name with a slash is
// relative to dir, the directory in which the Command starts, and stays so. If it
// gets a root directory of its own, its file needs to exist only there, and the
// result is a path there.
func LookPath(root, dir, name string) (string, error) {
	if root == "" {
		path, err := exec.LookPath(from(dir, name))
		if err != nil || path != from(dir, name) {
			return path, err
		}
		return name, nil
	}
	name = from(dir, name)
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = nil
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			candidates = append(candidates, path.Join(dir, name))
		}
	}
	var denied error
	for _, candidate := range candidates {
		file := path.Join("/", candidate) // the working directory is the root
		info, err := os.Stat(inRoot(root, file))
		switch {
		case err != nil:
		case info.IsDir():
			if strings.Contains(name, "/") {
				denied = syscall.EISDIR
			}
		case info.Mode().Perm()&0o111 == 0:
			denied = os.ErrPermission
		default:
			return file, nil
		}
	}
	if denied != nil {
		return "", &exec.Error{Name: name, Err: denied}
	}
	return "", &exec.Error{Name: name, Err: fmt.Errorf("%w: not found in %s, which is its root directory by Chroot", exec.ErrNotFound, root)}
}

// from returns the path of a file that a process in dir names.
func from(dir, name string) string {
	if dir == "" || filepath.IsAbs(name) || !strings.Contains(name, "/") {
		return name
	}
	return filepath.Join(dir, name)
}

// maxLinks bounds the symbolic links on the way to a file, as Linux does.
const maxLinks = 40

// inRoot returns the path of a file as a process sees it whose root directory is
// root. Symbolic links, which are often absolute, are followed below the root.
func inRoot(root, file string) string {
	if root == "" {
		return file
	}
	links := 0
	done, left := "/", strings.Split(file, "/")
	for len(left) > 0 {
		next := path.Join(done, left[0]) // ".." does not leave "/"
		left = left[1:]
		if next == "/" { // chroot follows links to the root, so they lead here
			done = next
			continue
		}
		target, err := os.Readlink(filepath.Join(root, next))
		if err != nil || links == maxLinks {
			done = next
			continue
		}
		links++
		if path.IsAbs(target) {
			done = "/"
		}
		left = append(strings.Split(target, "/"), left...)
	}
	return filepath.Join(root, done)
}
