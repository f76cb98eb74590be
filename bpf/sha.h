/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Extending one register value in one bank: value = H(value || digest), FIPS
 * 180-4. The messages are of one length in each bank (40, 64 and 96 bytes), so
 * the padding is constant.
 *
 * The rounds are loops over sixteen unrolled ones, where a round's working
 * variables have come back to their names. The message schedule is a window of
 * sixteen words that slides with the rounds (FIPS 180-4 §6.1.3).
 *
 * Each function is a BPF subprogram of its own: together their stack frames
 * would not fit into the 512 bytes that a call chain has.
 */
#ifndef TALLYSTICK_SHA_H
#define TALLYSTICK_SHA_H

#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ROL32(x, n) (((x) << (n)) | ((x) >> (32 - (n))))
#define ROR32(x, n) ROL32(x, 32 - (n))
#define ROR64(x, n) (((x) >> (n)) | ((x) << (64 - (n))))

#define CH(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define MAJ(x, y, z) (((x) & (y)) | ((z) & ((x) | (y))))
#define PARITY(x, y, z) ((x) ^ (y) ^ (z))

/*
 * Ends a round: keeps the schedule's window in memory, and what comes after
 * behind what came before. The compiler would otherwise make the words of many
 * rounds first, and need more stack for them than there is.
 */
#define ROUND_END(w) asm volatile("" : : "r"(w) : "memory")

/* FIPS 180-4 §4.2.2, §4.2.3: cube roots of the first 64 and 80 primes. */
static const __u32 sha256_k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5,
	0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
	0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
	0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
	0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
	0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5,
	0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
	0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static const __u64 sha512_k[80] = {
	0x428a2f98d728ae22, 0x7137449123ef65cd,
	0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
	0x3956c25bf348b538, 0x59f111f1b605d019,
	0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
	0xd807aa98a3030242, 0x12835b0145706fbe,
	0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
	0x72be5d74f27b896f, 0x80deb1fe3b1696b1,
	0x9bdc06a725c71235, 0xc19bf174cf692694,
	0xe49b69c19ef14ad2, 0xefbe4786384f25e3,
	0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
	0x2de92c6f592b0275, 0x4a7484aa6ea6e483,
	0x5cb0a9dcbd41fbd4, 0x76f988da831153b5,
	0x983e5152ee66dfab, 0xa831c66d2db43210,
	0xb00327c898fb213f, 0xbf597fc7beef0ee4,
	0xc6e00bf33da88fc2, 0xd5a79147930aa725,
	0x06ca6351e003826f, 0x142929670a0e6e70,
	0x27b70a8546d22ffc, 0x2e1b21385c26c926,
	0x4d2c6dfc5ac42aed, 0x53380d139d95b3df,
	0x650a73548baf63de, 0x766a0abb3c77b2a8,
	0x81c2c92e47edaee6, 0x92722c851482353b,
	0xa2bfe8a14cf10364, 0xa81a664bbc423001,
	0xc24b8b70d0f89791, 0xc76c51a30654be30,
	0xd192e819d6ef5218, 0xd69906245565a910,
	0xf40e35855771202a, 0x106aa07032bbd1b8,
	0x19a4c116b8d2d0c8, 0x1e376c085141ab53,
	0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8,
	0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb,
	0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3,
	0x748f82ee5defb2fc, 0x78a5636f43172f60,
	0x84c87814a1f0ab72, 0x8cc702081a6439ec,
	0x90befffa23631e28, 0xa4506cebde82bde9,
	0xbef9a3f7b2c67915, 0xc67178f2e372532b,
	0xca273eceea26619c, 0xd186b8c721c0c207,
	0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178,
	0x06f067aa72176fba, 0x0a637dc5a2c898a6,
	0x113f9804bef90dae, 0x1b710b35131c471b,
	0x28db77f523047d84, 0x32caab7b40c72493,
	0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c,
	0x4cc5d4becb3e42b6, 0x597f299cfc657e2a,
	0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};

/*
 * The same plus the schedule of the block 80 00 .. 02 00, which is the padding of
 * a message of 64 bytes: W[t] + K[t] of FIPS 180-4 §6.2.2.
 */
static const __u32 sha256_padding_kw[64] = {
	0xc28a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5,
	0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
	0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf374,
	0x649b69c1, 0xf0fe4786, 0x0fe1edc6, 0x240cf254,
	0x4fe9346f, 0x6cc984be, 0x61b9411e, 0x16f988fa,
	0xf2c65152, 0xa88e5a6d, 0xb019fc65, 0xb9d99ec7,
	0x9a1231c3, 0xe70eeaa0, 0xfdb1232b, 0xc7353eb0,
	0x3069bad5, 0xcb976d5f, 0x5a0f118f, 0xdc1eeefd,
	0x0a35b689, 0xde0b7a04, 0x58f4ca9d, 0xe15d5b16,
	0x007f3e86, 0x37088980, 0xa507ea32, 0x6fab9537,
	0x17406110, 0x0d8cd6f1, 0xcdaa3b6d, 0xc0bbbe37,
	0x83613bda, 0xdb48a363, 0x0b02e931, 0x6fd15ca7,
	0x521afaca, 0x31338431, 0x6ed41a95, 0x6d437890,
	0xc39c91f2, 0x9eccabbd, 0xb5c9a0e6, 0x532fb63c,
	0xd2c741c6, 0x07237ea3, 0xa4954b68, 0x4c191d76,
};

/* FIPS 180-4 §6.1.2, without the schedule. f and k depend on the round. */
#define SHA1_ROUND(a, b, c, d, e, f, k, W, w, i)                               \
	do {                                                                   \
		e += ROL32(a, 5) + f(b, c, d) + (k) + W(w, i);                 \
		b = ROL32(b, 30);                                              \
		ROUND_END(w);                                                  \
	} while (0)

#define SHA1_W(w, i)                                                           \
	(w[(i) & 15] = ROL32(w[((i) + 13) & 15] ^ w[((i) + 8) & 15] ^          \
			     w[((i) + 2) & 15] ^ w[(i) & 15], 1))

/* Five rounds, after which the variables have their names again. */
#define SHA1_FIVE(f, k, W, w, i)                                               \
	do {                                                                   \
		SHA1_ROUND(a, b, c, d, e, f, k, W, w, (i) + 0);                 \
		SHA1_ROUND(e, a, b, c, d, f, k, W, w, (i) + 1);                 \
		SHA1_ROUND(d, e, a, b, c, f, k, W, w, (i) + 2);                 \
		SHA1_ROUND(c, d, e, a, b, f, k, W, w, (i) + 3);                 \
		SHA1_ROUND(b, c, d, e, a, f, k, W, w, (i) + 4);                 \
	} while (0)

#define SHA1_FIRST(w, i) (w[i])

#define SHA1_TWENTY(f, k, w, i)                                                \
	do {                                                                   \
		SHA1_FIVE(f, k, SHA1_W, w, (i));                               \
		SHA1_FIVE(f, k, SHA1_W, w, (i) + 5);                           \
		SHA1_FIVE(f, k, SHA1_W, w, (i) + 10);                          \
		SHA1_FIVE(f, k, SHA1_W, w, (i) + 15);                          \
	} while (0)

/*
 * sha1_extend: in_out = SHA-1(old || in_out). Values and digests are bytes in
 * the digest's order, aligned to its words.
 */
static __noinline int sha1_extend(const void *old, void *in_out)
{
	const __be32 *value = old;
	__be32 *digest = in_out;
	__u32 a = 0x67452301, b = 0xefcdab89, c = 0x98badcfe, d = 0x10325476, e = 0xc3d2e1f0;
	__u32 w[16];

#pragma unroll
	for (int i = 0; i < 5; i++) {
		w[i] = bpf_ntohl(value[i]);
		w[5 + i] = bpf_ntohl(digest[i]);
	}
	w[10] = 0x80000000;
	w[11] = w[12] = w[13] = w[14] = 0;
	w[15] = 40 * 8;

	SHA1_FIVE(CH, 0x5a827999, SHA1_FIRST, w, 0);
	SHA1_FIVE(CH, 0x5a827999, SHA1_FIRST, w, 5);
	SHA1_FIVE(CH, 0x5a827999, SHA1_FIRST, w, 10);
	SHA1_ROUND(a, b, c, d, e, CH, 0x5a827999, SHA1_FIRST, w, 15);
	SHA1_ROUND(e, a, b, c, d, CH, 0x5a827999, SHA1_W, w, 16);
	SHA1_ROUND(d, e, a, b, c, CH, 0x5a827999, SHA1_W, w, 17);
	SHA1_ROUND(c, d, e, a, b, CH, 0x5a827999, SHA1_W, w, 18);
	SHA1_ROUND(b, c, d, e, a, CH, 0x5a827999, SHA1_W, w, 19);
	SHA1_TWENTY(PARITY, 0x6ed9eba1, w, 20);
	SHA1_TWENTY(MAJ, 0x8f1bbcdc, w, 40);
	SHA1_TWENTY(PARITY, 0xca62c1d6, w, 60);

	digest[0] = bpf_htonl(0x67452301 + a);
	digest[1] = bpf_htonl(0xefcdab89 + b);
	digest[2] = bpf_htonl(0x98badcfe + c);
	digest[3] = bpf_htonl(0x10325476 + d);
	digest[4] = bpf_htonl(0xc3d2e1f0 + e);
	return 0;
}

/* FIPS 180-4 §6.2.2 and §6.4.2, which differ in the word and the rotations. */
#define SHA2_ROUND(S0, S1, a, b, c, d, e, f, g, h, kw)                         \
	do {                                                                   \
		h += S1(e) + CH(e, f, g) + (kw);                               \
		d += h;                                                        \
		h += S0(a) + MAJ(a, b, c);                                     \
		ROUND_END(w);                                                  \
	} while (0)

#define SHA2_EIGHT(S0, S1, KW, i)                                              \
	do {                                                                   \
		SHA2_ROUND(S0, S1, a, b, c, d, e, f, g, h, KW((i) + 0));       \
		SHA2_ROUND(S0, S1, h, a, b, c, d, e, f, g, KW((i) + 1));       \
		SHA2_ROUND(S0, S1, g, h, a, b, c, d, e, f, KW((i) + 2));       \
		SHA2_ROUND(S0, S1, f, g, h, a, b, c, d, e, KW((i) + 3));       \
		SHA2_ROUND(S0, S1, e, f, g, h, a, b, c, d, KW((i) + 4));       \
		SHA2_ROUND(S0, S1, d, e, f, g, h, a, b, c, KW((i) + 5));       \
		SHA2_ROUND(S0, S1, c, d, e, f, g, h, a, b, KW((i) + 6));       \
		SHA2_ROUND(S0, S1, b, c, d, e, f, g, h, a, KW((i) + 7));       \
	} while (0)

#define SHA2_W(s0, s1, w, i)                                                   \
	(w[i] += s1(w[((i) + 14) & 15]) + w[((i) + 9) & 15] + s0(w[((i) + 1) & 15]))

#define SHA256_S0(x) (ROR32(x, 2) ^ ROR32(x, 13) ^ ROR32(x, 22))
#define SHA256_S1(x) (ROR32(x, 6) ^ ROR32(x, 11) ^ ROR32(x, 25))
#define SHA256_s0(x) (ROR32(x, 7) ^ ROR32(x, 18) ^ ((x) >> 3))
#define SHA256_s1(x) (ROR32(x, 17) ^ ROR32(x, 19) ^ ((x) >> 10))

#define SHA512_S0(x) (ROR64(x, 28) ^ ROR64(x, 34) ^ ROR64(x, 39))
#define SHA512_S1(x) (ROR64(x, 14) ^ ROR64(x, 18) ^ ROR64(x, 41))
#define SHA512_s0(x) (ROR64(x, 1) ^ ROR64(x, 8) ^ ((x) >> 7))
#define SHA512_s1(x) (ROR64(x, 19) ^ ROR64(x, 61) ^ ((x) >> 6))

#define SHA256_KW_FIRST(i) (sha256_k[i] + w[i])
#define SHA256_KW(i) (sha256_k[t + (i)] + SHA2_W(SHA256_s0, SHA256_s1, w, i))
#define SHA256_KW_PADDING(i) (sha256_padding_kw[t + (i)])

#define SHA512_KW_FIRST(i) (sha512_k[i] + w[i])
#define SHA512_KW(i) (sha512_k[t + (i)] + SHA2_W(SHA512_s0, SHA512_s1, w, i))

/*
 * sha256_extend: in_out = SHA-256(old || in_out). The message fills a block,
 * so the padding is a block of its own.
 */
static __noinline int sha256_extend(const void *old, void *in_out)
{
	const __be32 *value = old;
	__be32 *digest = in_out;
	__u32 a = 0x6a09e667, b = 0xbb67ae85, c = 0x3c6ef372, d = 0xa54ff53a;
	__u32 e = 0x510e527f, f = 0x9b05688c, g = 0x1f83d9ab, h = 0x5be0cd19;
	__u32 w[16];

#pragma unroll
	for (int i = 0; i < 8; i++) {
		w[i] = bpf_ntohl(value[i]);
		w[8 + i] = bpf_ntohl(digest[i]);
	}
	SHA2_EIGHT(SHA256_S0, SHA256_S1, SHA256_KW_FIRST, 0);
	SHA2_EIGHT(SHA256_S0, SHA256_S1, SHA256_KW_FIRST, 8);
#pragma nounroll
	for (int t = 16; t < 64; t += 16) {
		SHA2_EIGHT(SHA256_S0, SHA256_S1, SHA256_KW, 0);
		SHA2_EIGHT(SHA256_S0, SHA256_S1, SHA256_KW, 8);
	}

	w[0] = a += 0x6a09e667; /* the schedule is done with: w is the state */
	w[1] = b += 0xbb67ae85;
	w[2] = c += 0x3c6ef372;
	w[3] = d += 0xa54ff53a;
	w[4] = e += 0x510e527f;
	w[5] = f += 0x9b05688c;
	w[6] = g += 0x1f83d9ab;
	w[7] = h += 0x5be0cd19;
#pragma nounroll
	for (int t = 0; t < 64; t += 16) {
		SHA2_EIGHT(SHA256_S0, SHA256_S1, SHA256_KW_PADDING, 0);
		SHA2_EIGHT(SHA256_S0, SHA256_S1, SHA256_KW_PADDING, 8);
	}

	digest[0] = bpf_htonl(w[0] + a);
	digest[1] = bpf_htonl(w[1] + b);
	digest[2] = bpf_htonl(w[2] + c);
	digest[3] = bpf_htonl(w[3] + d);
	digest[4] = bpf_htonl(w[4] + e);
	digest[5] = bpf_htonl(w[5] + f);
	digest[6] = bpf_htonl(w[6] + g);
	digest[7] = bpf_htonl(w[7] + h);
	return 0;
}

/* sha384_extend: in_out = SHA-384(old || in_out) */
static __noinline int sha384_extend(const void *old, void *in_out)
{
	const __be64 *value = old;
	__be64 *digest = in_out;
	__u64 a = 0xcbbb9d5dc1059ed8, b = 0x629a292a367cd507;
	__u64 c = 0x9159015a3070dd17, d = 0x152fecd8f70e5939;
	__u64 e = 0x67332667ffc00b31, f = 0x8eb44a8768581511;
	__u64 g = 0xdb0c2e0d64f98fa7, h = 0x47b5481dbefa4fa4;
	__u64 w[16];

#pragma unroll
	for (int i = 0; i < 6; i++) {
		w[i] = bpf_be64_to_cpu(value[i]);
		w[6 + i] = bpf_be64_to_cpu(digest[i]);
	}
	w[12] = 0x8000000000000000;
	w[13] = w[14] = 0;
	w[15] = 96 * 8;

	SHA2_EIGHT(SHA512_S0, SHA512_S1, SHA512_KW_FIRST, 0);
	SHA2_EIGHT(SHA512_S0, SHA512_S1, SHA512_KW_FIRST, 8);
#pragma nounroll
	for (int t = 16; t < 80; t += 16) {
		SHA2_EIGHT(SHA512_S0, SHA512_S1, SHA512_KW, 0);
		SHA2_EIGHT(SHA512_S0, SHA512_S1, SHA512_KW, 8);
	}

	digest[0] = bpf_cpu_to_be64(0xcbbb9d5dc1059ed8 + a);
	digest[1] = bpf_cpu_to_be64(0x629a292a367cd507 + b);
	digest[2] = bpf_cpu_to_be64(0x9159015a3070dd17 + c);
	digest[3] = bpf_cpu_to_be64(0x152fecd8f70e5939 + d);
	digest[4] = bpf_cpu_to_be64(0x67332667ffc00b31 + e);
	digest[5] = bpf_cpu_to_be64(0x8eb44a8768581511 + f);
	return 0;
}

#endif
