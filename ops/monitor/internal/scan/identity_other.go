//go:build !unix

package scan

import "io/fs"

func identify(info fs.FileInfo) identity {
	return identity{size: info.Size(), mtime: info.ModTime().UnixNano()}
}
