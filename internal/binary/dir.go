//go:build unix

package binary

import (
	"os"
	"path/filepath"
	"strings"
)

// DirByName returns a name of dir, the directory in which this program was
// started, given its first argument. A deployment often switches a link to the
// directory of another release, so DirByName prefers a name with a link: that of
// dir itself, then a directory in the path by which the program was started.
// Without the variable PWD, which shells set, the kernel knows no name but the one
// without links. Then DirByName returns the name by the only link that leads
// there, if there is one a few levels above. It must be called soon after the
// start of the program.
func DirByName(args0, dir string) string {
	if !filepath.IsAbs(dir) || hasLink(dir) {
		return dir
	}
	info, err := os.Stat(dir)
	if err != nil {
		return dir
	}
	if path := startedBy(args0, dir); !strings.HasPrefix(path, dir+"/") {
		for at := filepath.Dir(path); filepath.Dir(at) != at && at != "."; at = filepath.Dir(at) {
			if there, err := os.Stat(at); err == nil && os.SameFile(info, there) {
				return at
			}
		}
	}
	if os.Getenv("PWD") == "" {
		if link := onlyLink(dir); link != "" {
			return link
		}
	}
	return dir
}

func hasLink(dir string) bool {
	real, err := filepath.EvalSymlinks(dir)
	return err == nil && real != dir
}

const (
	linkLevels  = 3    // how far above a directory links to it are searched
	linkEntries = 4096 // how many entries of a directory are read
)

// onlyLink returns the name of dir by a symbolic link in a directory above it, if
// exactly one link leads to dir or to a directory between.
func onlyLink(dir string) (name string) {
	for level, above := 0, filepath.Dir(dir); level < linkLevels && filepath.Dir(above) != above; level, above = level+1, filepath.Dir(above) {
		for _, link := range linksIn(above) {
			target, err := filepath.EvalSymlinks(link)
			if err != nil || !strings.HasPrefix(target, above+"/") || !strings.HasPrefix(dir+"/", target+"/") {
				continue
			}
			if name != "" {
				return ""
			}
			name = link + dir[len(target):]
		}
	}
	return name
}

// linksIn returns the links in a directory. It ignores a directory that others may
// write to: they could choose where workers start.
func linksIn(dir string) (links []string) {
	if info, err := os.Stat(dir); err != nil || info.Mode()&0o022 != 0 {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	entries, _ := f.ReadDir(linkEntries)
	for _, e := range entries {
		if e.Type() == os.ModeSymlink {
			links = append(links, filepath.Join(dir, e.Name()))
		}
	}
	return links
}
