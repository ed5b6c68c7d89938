/* The binary protocol, byte for byte: docs/protocol.md tells it in prose. All integers are
 * little-endian. */
#ifndef MINIVAULT_PROTOCOL_H
#define MINIVAULT_PROTOCOL_H

enum minivault_op {
    MINIVAULT_GET = 0x01,    /* 01 keylen:u16 key */
    MINIVAULT_SET = 0x02,    /* 02 keylen:u16 key vallen:u32 compressed:u8 value */
    MINIVAULT_DELETE = 0x03, /* 03 keylen:u16 key */
    MINIVAULT_SYNC = 0x04,   /* nodes only: refused and closed for anybody else */
    MINIVAULT_HEALTH = 0x05, /* 05 keylen:u16 key (ignored) */
    MINIVAULT_AUTH = 0x06,   /* 06 keylen:u16 secret */
    MINIVAULT_HELLO = 0x07,  /* 07 keylen:u16 "minivault/2" */
    MINIVAULT_TYPED = 0x10,  /* and above, after HELLO:
                                op:u8 flags:u8 keylen:u16 bodylen:u32 key body */
    MINIVAULT_STATS = 0x20,  /* typed, key and body empty: what the node has counted, as JSON */
};

#define MINIVAULT_HELLO_NAME "minivault/2"

/* An answer is status:u8 len:u32 data. A plain connection knows OK and ERROR, and an error's len is
 * 0. After HELLO the status is typed and an error's data is a UTF-8 message. */
enum minivault_status {
    MINIVAULT_OK = 0x00,
    MINIVAULT_NOT_FOUND = 0x01,
    MINIVAULT_NOT_APPLIED = 0x02,
    MINIVAULT_AMBIGUOUS = 0x03,
    MINIVAULT_SUPERSEDED = 0x04,
    MINIVAULT_OVERLOADED = 0x05,
    MINIVAULT_NO_SPACE = 0x06,
    MINIVAULT_CORRUPT = 0x07,
    MINIVAULT_AUTH_REQUIRED = 0x08,
    MINIVAULT_TOO_LARGE = 0x09,
    MINIVAULT_BAD_REQUEST = 0x0A,
    MINIVAULT_UNSUPPORTED = 0x0B,
    MINIVAULT_NOT_READY = 0x0C,
    MINIVAULT_ERROR = 0xFF,
};

#define MINIVAULT_ANSWER_HEADER_SIZE 5
#define MINIVAULT_KEY_SIZE_MAX 65535u
#define MINIVAULT_VALUE_SIZE_MAX (100u * 1024 * 1024)

#endif
