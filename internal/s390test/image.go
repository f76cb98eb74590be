package s390test

import (
	"crypto/ecdh"
	"crypto/sha512"
	"encoding/binary"
	"slices"
)

// Component is a part of an image, in whole pages.
type Component struct {
	Tweak, Address uint64
	Pages          []byte
}

// HeaderAt is where Image has its header: the IPL parameter block stands on the page
// before it.
const HeaderAt = 0x14000

// Image makes an image of components, and its header, whose digests are of their
// pages.
func Image(label string, components []Component, hosts ...*ecdh.PublicKey) (image, header []byte) {
	size := HeaderAt + 0x2000
	for _, c := range components {
		size = max(size, int(c.Address)+len(c.Pages))
	}
	image, header = make([]byte, size), Header(label, hosts...)
	block := binary.BigEndian.AppendUint32(nil, 0x1000)
	block = append(block, 0, 0, 0, 1)
	block = binary.BigEndian.AppendUint32(block, uint32(128+24*len(components)))
	block = append(append(block, 5), make([]byte, 103)...)
	block = binary.BigEndian.AppendUint32(block, uint32(len(components)))
	block = binary.BigEndian.AppendUint64(append(block, make([]byte, 8)...), uint64(len(header)))
	var pages, addresses, tweaks []byte
	for _, c := range components {
		for _, field := range []uint64{c.Tweak, c.Address, uint64(len(c.Pages))} {
			block = binary.BigEndian.AppendUint64(block, field)
		}
		copy(image[c.Address:], c.Pages)
		pages = append(pages, c.Pages...)
		for at := uint64(0); at < uint64(len(c.Pages)); at += 4096 {
			addresses = binary.BigEndian.AppendUint64(addresses, c.Address+at)
			tweaks = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(tweaks, c.Tweak), at)
		}
	}
	binary.BigEndian.PutUint64(header[0x30:], uint64(len(pages)/4096))
	for i, of := range [][]byte{pages, addresses, tweaks} {
		digest := sha512.Sum512(of)
		copy(header[0xE0+64*i:], digest[:])
	}
	copy(image[HeaderAt-0x1000:], block)
	copy(image[HeaderAt:], header)
	return image, header
}

// SmallImage is an image of three components.
func SmallImage(label string, hosts ...*ecdh.PublicKey) (image, header []byte) {
	pages := func(b byte, n int) []byte { return slices.Repeat([]byte{b}, n*4096) }
	return Image(label, []Component{{0x1111111111111, 0x15000, pages(1, 2)}, {0x2222222222222, 0x17000, pages(2, 1)}, {0x3333333333333, 0x18000, pages(3, 3)}}, hosts...)
}
