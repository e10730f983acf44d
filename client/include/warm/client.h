/* SPDX-License-Identifier: Apache-2.0 */
/* In the tree, <warm/client.h> is the header beside; installed, it is that header itself. */
#pragma once

#include "../../client.h"
