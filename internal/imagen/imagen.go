// Package imagen writes measurement lists of any length, such as a kernel
// would show, for tests and benchmarks that no captured list is long enough
// for.
package imagen

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"

	"tallystick/ima"
)

// names are the two halves of file names. With an entry's number between them
// they are about as long as those of the fixtures.
var names = [][2]string{
	{"/usr/bin/tool-", ""},
	{"/usr/lib/x86_64-linux-gnu/lib", ".so.6.0.1"},
	{"/usr/lib/python3/dist-packages/m", ".py"},
	{"/usr/share/perl/5.36.0/Module/M", ".pm"},
	{"/etc/alternatives.d/", ".conf"},
	{"/usr/lib/modules/6.12.0-amd64/kernel/drivers/d", ".ko"},
}

// Write writes a list of n entries in PCR 10: a boot_aggregate of a machine
// without a TPM, then ima-ng entries, each of another file and digest. The
// same n and layout give the same bytes.
func Write(w io.Writer, l ima.Layout, n int) error {
	out := bufio.NewWriterSize(w, 1<<20)
	var record, data, name []byte
	var err error
	for i := range n {
		data, name = appendData(data[:0], name[:0], l, i)
		if record, err = l.AppendRecord(record[:0], 10, ima.NewEntry("ima-ng", data, l.Order)); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if _, err := out.Write(record); err != nil {
			return err
		}
	}
	return out.Flush()
}

// appendData appends the template data of entry i: the fields d-ng and n-ng.
func appendData(dst, scratch []byte, l ima.Layout, i int) (data, buf []byte) {
	digest := [sha256.Size]byte{}
	if i > 0 {
		digest = sha256.Sum256(binary.LittleEndian.AppendUint64(scratch[:0], uint64(i)))
	}
	buf = append(append(scratch[:0], "sha256:\x00"...), digest[:]...)
	data = l.AppendField(dst, buf)
	if i == 0 {
		return l.AppendField(data, []byte("boot_aggregate\x00")), buf
	}
	name := names[i%len(names)]
	buf = strconv.AppendInt(append(buf[:0], name[0]...), int64(i), 10)
	buf = append(append(buf, name[1]...), 0)
	return l.AppendField(data, buf), buf
}
