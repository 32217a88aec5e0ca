package scan

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// temporary are the names that editors, version control and package managers
// use for a while, or leave behind.
var temporary = []string{
	".*", "*~", "*.swp", "*.swx", "*.tmp", "*.bak", "*.orig", "*.rej", "*.new",
	"*.dpkg-*", "*.rpm*", "#*#", "4913",
}

// ignored reports whether a name is passed over silently.
func ignored(key string) bool {
	return slices.ContainsFunc(temporary, func(pattern string) bool {
		ok, _ := path.Match(pattern, key)
		return ok
	})
}

// look looks at a name. link is set if it is a symbolic link: the system does
// not notify of changes of its target.
func look(dir, key string) (f file, link bool) {
	full := filepath.Join(dir, key)
	info, err := os.Lstat(full)
	if link = err == nil && info.Mode()&fs.ModeSymlink != 0; link {
		info, err = os.Stat(full)
	}
	switch {
	case absent(err) && link:
		return file{state: other, reason: "symbolic link to a file that is not there"}, link
	case absent(err):
		return file{}, link
	case errors.Is(err, syscall.ELOOP):
		return file{state: other, reason: "symbolic link to itself"}, link
	case err != nil:
		return file{state: unknown, reason: reasonOf(err)}, link
	case info.IsDir():
		return lookDir(full, info), link
	case !info.Mode().IsRegular():
		return file{state: other, reason: "neither a file nor a directory"}, link
	case !executable(info):
		return file{state: other, reason: "not executable"}, link
	}
	return file{state: program, id: identify(info)}, link
}

// lookDir looks at a directory.
func lookDir(full string, info fs.FileInfo) file {
	id := identify(info)
	id.size, id.mtime = 0, 0
	run, err := os.Stat(filepath.Join(full, "run"))
	switch {
	case absent(err):
		return file{noRun, id, "directory without run"}
	case err != nil:
		return file{unknown, id, "run: " + reasonOf(err)}
	case !run.Mode().IsRegular():
		return file{noRun, id, "its run is not a file"}
	case !executable(run):
		return file{noRun, id, "its run is not executable"}
	}
	return file{service, id, ""}
}

func executable(info fs.FileInfo) bool { return info.Mode()&0o111 != 0 }

func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// reasonOf returns the text of an error without the path, which its reader knows.
func reasonOf(err error) string {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err
	}
	return strings.ToLower(err.Error())
}
