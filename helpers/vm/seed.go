//go:build linux

package vm

import (
	"bytes"
	"cmp"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"

	"cdblab/helpers/dist"
	"cdblab/helpers/vm/protocol"
)

// The seed disk brings the questions into a VM that boots a disk of the user, and has them started there without a password. Two
// ways are prepared at once, because they do not disturb each other:
//
//   - systemd 256 and later reads units from the machine's SMBIOS: https://systemd.io/CREDENTIALS/
//   - cloud-init reads the seed disk: https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
//
// The file system is ISO 9660: each kernel for which cloud-init works can read it.

//go:embed seed/cdblab.service
var seedUnit string

//go:embed seed/start.sh
var seedScript string

//go:embed seed/user-data.sh
var seedUserData string

// credentials are the values of SMBIOS type 11 by which systemd gets the service, and a reason to start it.
func seedCredentials() []string {
	credential := func(name, value string) string {
		return "io.systemd.credential.binary:" + name + "=" + base64.StdEncoding.EncodeToString([]byte(value))
	}
	return []string{
		credential("systemd.extra-unit."+protocol.ServiceName, seedUnit),
		credential("systemd.unit-dropin.multi-user.target", "[Unit]\nWants="+protocol.ServiceName+"\n"),
	}
}

// seedImage writes the seed disk. tarball is the tarball of make dist, or the directory that it unpacks to. userData is the path of
// the user's own cloud-init data, or "". wait is how long the guest waits for the end of its boot. The file has no name, and goes away
// with the last process that has it open.
func (c *Cache) seedImage(tarball, userData string, wait time.Duration) (*os.File, error) {
	user, err := seedUserDataOf(userData)
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(c.dir, ".seed-*")
	if err != nil {
		return nil, spaceNeeded("make the seed disk", c.dir, err, diskSpace)
	}
	defer os.RemoveAll(work)
	if err := dist.Unpack(filepath.Join(work, protocol.SeedTree), tarball); err != nil {
		fault := spaceNeeded("unpack the lab's tarball", c.dir, err, diskSpace)
		fault.Do = cmp.Or(fault.Do, "make it again: make dist")
		return nil, fault
	}
	image, err := writeSeed(work, c.dir, user, wait)
	if err != nil {
		return nil, spaceNeeded("make the seed disk", c.dir, err, diskSpace)
	}
	return image, nil
}

// writeSeed adds the small files to the directory, and writes an image of it.
func writeSeed(work, dir string, userData []byte, wait time.Duration) (_ *os.File, err error) {
	id := make([]byte, 8)
	_, _ = rand.Read(id)
	init := filepath.Join(work, protocol.SeedTree, dist.Init)
	err = os.Rename(init, filepath.Join(work, protocol.SeedInit))
	for name, content := range map[string]string{
		"meta-data":          fmt.Sprintf("instance-id: cdblab-%x\n", id), // cloud-init runs a script once for each instance
		"user-data":          string(userData),
		protocol.SeedScript:  strings.ReplaceAll(seedScript, "@LIMIT@", strconv.Itoa(int(wait.Seconds()))),
		protocol.ServiceName: seedUnit,
	} {
		err = errors.Join(err, os.WriteFile(filepath.Join(work, name), []byte(content), 0o644))
	}
	if err != nil {
		return nil, err
	}
	image, err := unnamedFile(dir, nil)
	if err != nil {
		return nil, err
	}
	fs, err := iso9660.Create(file.New(image, false), 0, 0, 0, work)
	if err == nil {
		err = fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, DeepDirectories: true, VolumeIdentifier: protocol.SeedLabel})
	}
	if err == nil {
		err = fillSector(image)
	}
	if err != nil {
		image.Close()
		return nil, err
	}
	return image, nil
}

// seedUserDataOf returns the user data for cloud-init: the lab's script, and what the user's file has, which is of any kind that
// cloud-init knows by its first line.
func seedUserDataOf(path string) ([]byte, error) {
	if path == "" {
		return []byte(seedUserData), nil
	}
	own, err := os.ReadFile(path)
	if err != nil {
		return nil, &Fault{Tried: "read the user data for cloud-init", Seen: err.Error(),
			Do: "USER_DATA= is the path of a file, such as one that begins with #cloud-config"}
	}
	header, content, err := userDataPart(own)
	if err != nil {
		first, _, _ := strings.Cut(string(own), "\n")
		return nil, &Fault{
			Tried: "read the user data for cloud-init",
			Seen:  fmt.Sprintf("the first line of %s is %.60q, and %v", path, first, err),
			Do:    "begin it with #cloud-config, with #! for a script, or with the header of a MIME message",
		}
	}
	var body bytes.Buffer
	parts := multipart.NewWriter(&body)
	for _, part := range []struct {
		header  textproto.MIMEHeader
		content []byte
	}{{header, content}, {textproto.MIMEHeader{"Content-Type": {"text/x-shellscript"}}, []byte(seedUserData)}} {
		part.header.Set("MIME-Version", "1.0")
		w, err := parts.CreatePart(part.header)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(part.content); err != nil {
			return nil, err
		}
	}
	if err := parts.Close(); err != nil {
		return nil, err
	}
	head := fmt.Sprintf("Content-Type: multipart/mixed; boundary=%q\nMIME-Version: 1.0\n\n", parts.Boundary())
	return append([]byte(head), body.Bytes()...), nil
}

// userDataPart returns the user's data as a part of a message. Of a text, cloud-init finds out the kind by its first line. A message stays
// what it is, with its own header: as a text it would be ignored. cloud-init walks through messages in messages.
func userDataPart(own []byte) (textproto.MIMEHeader, []byte, error) {
	if bytes.HasPrefix(own, []byte("#")) {
		lines := slices.Chunk([]byte(base64.StdEncoding.EncodeToString(own)), 76)
		return textproto.MIMEHeader{
			"Content-Type": {`text/plain; charset="utf-8"`}, "Content-Transfer-Encoding": {"base64"},
		}, bytes.Join(slices.Collect(lines), []byte("\r\n")), nil
	}
	message, err := mail.ReadMessage(bytes.NewReader(own))
	if err != nil || message.Header.Get("Content-Type") == "" {
		return nil, nil, errors.New("cloud-init does not know what it is")
	}
	content, err := io.ReadAll(message.Body)
	return textproto.MIMEHeader(message.Header), content, err
}
